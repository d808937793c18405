"""LAMB: AdamW with a trust ratio per layer, for very large batches (You et al. 2020).

"Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", algorithm 2 with phi the identity:
w -= rate * |w| / |r + decay w| * (r + decay w), where r is Adam's bias-corrected ratio. As in the authors' code,
vectors (norms, biases) are neither decayed nor scaled. A trust ratio is 1 where a norm is zero.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section, Share


class Settings(Section):
    """Learning rate, weight decay and the moments' decay."""

    learning_rate: float = Field(gt=0, examples=[5e-2])
    """Peak; the learning-rate schedule and a tuner's factors multiply it. The paper scales it by the root of the
    batch size."""
    weight_decay: float = Field(ge=0, examples=[0.01])
    """Weight decay of matrices, inside the trust ratio; vectors (biases, norms) have none."""
    beta1: Share = Field(examples=[0.9])
    """Decay of the first moment."""
    beta2: Share = Field(examples=[0.95])
    """Decay of the second moment."""
    epsilon: float = Field(gt=0, examples=[1e-6])
    """Added to the root of the second moment."""


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """LAMB over a tuner's groups."""
    return Lamb(settings, groups)


class Lamb(torch.optim.Optimizer):
    """Algorithm 2 of the paper; `figures` holds the last step's trust ratios."""

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
    def step(self, _closure: Any = None) -> None:  # type: ignore[override]  # training passes no closure
        """One update of every parameter that has a gradient."""
        updates = [(p, p.grad, group["lr"]) for group in self.param_groups for p in group["params"]]
        ratios = [self._update(p, grad, rate) for p, grad, rate in updates if grad is not None]
        if matrices := [ratio for ratio in ratios if ratio is not None]:
            trusted = torch.stack(matrices)
            self.figures = {
                "trust_ratio_least": float(trusted.min()),
                "trust_ratio_mean": float(trusted.mean()),
                "trust_ratio_greatest": float(trusted.max()),
            }

    def _update(self, p: Tensor, grad: Tensor, rate: float) -> Tensor | None:
        """Updates one parameter and returns its trust ratio; None for a vector."""
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
        weight_norm, update_norm = p.norm(), direction.norm()
        ratio = torch.where(
            (weight_norm > 0) & (update_norm > 0), weight_norm / update_norm, torch.ones_like(weight_norm)
        )
        p.add_(direction * ratio, alpha=-rate)
        return ratio

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state |= {"step": torch.zeros(()), "first": torch.zeros_like(p), "second": torch.zeros_like(p)}
        return state
