"""AdamW with weight decay on matrices only, as in GPT-2 and nanoGPT; torch's fused kernel.

Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
"""

from typing import Any

import torch
from pydantic import Field

from pipeline.config.section import Section, Share


class Settings(Section):
    """Learning rate, weight decay and the moments' decay."""

    learning_rate: float = Field(gt=0, examples=[1e-2])
    """Peak; the learning-rate schedule and a tuner's factors multiply it."""
    weight_decay: float = Field(ge=0, examples=[0.1])
    """Decoupled weight decay of matrices, times the learning rate; vectors (biases, norms) have none."""
    beta1: Share = Field(examples=[0.9])
    """Decay of the first moment."""
    beta2: Share = Field(examples=[0.95])
    """Decay of the second moment."""
    epsilon: float = Field(gt=0, examples=[1e-8])
    """Added to the root of the second moment."""


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
