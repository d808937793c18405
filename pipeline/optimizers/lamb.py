"""LAMB: AdamW's direction, its length set layer by layer by the weights themselves, for very large batches.

You et al. 2020, "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", algorithm 2 with phi the
identity: w -= rate * |w| / |r + decay w| * (r + decay w), where r is Adam's bias-corrected ratio. As in the authors'
code, vectors (norms, biases) are neither decayed nor scaled. A trust ratio is 1 where a norm is zero.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section, Share


class Settings(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak; the schedule and a tuner's factors multiply it. The paper scales it by the root of the batch."""
    weight_decay: Annotated[float, Field(ge=0)]
    beta1: Share
    beta2: Share
    epsilon: Annotated[float, Field(gt=0)]


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """LAMB over a tuner's groups."""
    return Lamb(settings, groups)


class Lamb(torch.optim.Optimizer):
    """One step of the algorithm per call; `figures` holds the last step's trust ratios."""

    def __init__(self, settings: Settings, groups: list[dict[str, Any]]) -> None:
        self.settings = settings
        self.figures: dict[str, float] = {}
        """Least, mean and greatest trust ratio of the last step, for the log."""
        kept = []
        for group in groups:
            peak = settings.learning_rate * group["factor"]
            kept.append({"params": group["params"], "lr": peak, "peak": peak, "begins": group["begins"]})
        super().__init__(kept, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure here
        """One update of every parameter that has a gradient."""
        moved = [(p, p.grad, group["lr"]) for group in self.param_groups for p in group["params"]]
        ratios = [self._update(p, grad, rate) for p, grad, rate in moved if grad is not None]
        if matrices := [ratio for ratio in ratios if ratio is not None]:
            trusted = torch.stack(matrices)
            self.figures = {
                "trust_ratio_least": float(trusted.min()),
                "trust_ratio_mean": float(trusted.mean()),
                "trust_ratio_greatest": float(trusted.max()),
            }

    def _update(self, p: Tensor, grad: Tensor, rate: float) -> Tensor | None:
        """Moves one parameter; its trust ratio, none for a vector."""
        settings, state = self.settings, self._state(p)
        state["step"] += 1
        t = float(state["step"])
        state["first"].lerp_(grad, 1 - settings.beta1)
        state["second"].lerp_(grad * grad, 1 - settings.beta2)
        spread = (state["second"] / (1 - settings.beta2**t)).sqrt_().add_(settings.epsilon)
        direction = state["first"] / (1 - settings.beta1**t) / spread
        if p.dim() < 2:
            p.add_(direction, alpha=-rate)
            return None
        direction.add_(p, alpha=settings.weight_decay)
        length, stride = p.norm(), direction.norm()
        ratio = torch.where((length > 0) & (stride > 0), length / stride, torch.ones_like(length))
        p.add_(direction * ratio, alpha=-rate)
        return ratio

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state |= {"step": torch.zeros(()), "first": torch.zeros_like(p), "second": torch.zeros_like(p)}
        return state
