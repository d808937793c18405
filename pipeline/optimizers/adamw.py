"""AdamW (Loshchilov & Hutter 2019): weight decay on matrices only, as in GPT-2 and nanoGPT; torch's fused kernel."""

from typing import Annotated, Any

import torch
from pydantic import Field

from pipeline.config.section import Section, Share


class Settings(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak; the schedule and a tuner's factors multiply it."""
    weight_decay: Annotated[float, Field(ge=0)]
    beta1: Share
    beta2: Share
    epsilon: Annotated[float, Field(gt=0)]


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """AdamW over a tuner's groups `{"params": [...], "factor": f}`; vectors (biases, norms) are not decayed."""
    split = []
    for group in groups:
        for decays in (True, False):
            params = [p for p in group["params"] if (p.dim() >= 2) == decays]
            if params:
                peak = settings.learning_rate * group["factor"]
                decay = settings.weight_decay if decays else 0.0
                split.append(
                    {"params": params, "lr": peak, "peak": peak, "weight_decay": decay, "begins": group["begins"]}
                )
    return torch.optim.AdamW(split, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, fused=True)
