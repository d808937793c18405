"""TIES merging: trim small changes, elect a sign per weight, average the changes of that sign (Yadav et al. 2023).

Section 4.2 and algorithm 1 of the paper, where `density` is k and `scale` is lambda.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.merging import MergeRule, Tensors, task_vector


class Settings(Section):
    """Density of the trimmed task vectors, and the scale of the merged one."""

    density: float = Field(gt=0, le=1, examples=[1.0])
    """Share of a task vector that is kept, its largest entries over the whole model; 0.2 in the paper. Unchanged
    weights count too, so an adapter on half of the weights keeps all its changes at 0.5."""
    scale: float = Field(examples=[1.0])
    """Factor of the merged task vector; 1 in the paper without a validation set."""


def build(settings: Settings) -> MergeRule:
    """theta = theta_base + scale tau, tau the disjoint mean of the trimmed task vectors."""

    def merged(base: Tensors, models: Sequence[Tensors]) -> dict[str, Tensor]:
        vectors = [trimmed(task_vector(base, model), settings.density) for model in models]
        taus = {name: disjoint_mean(torch.stack([vector[name] for vector in vectors])) for name in base}
        return {name: (weight.double() + settings.scale * taus[name]).to(weight.dtype) for name, weight in base.items()}

    return merged


def trimmed(vector: Tensors, density: float) -> dict[str, Tensor]:
    """Step 1: keeps the `density` share of entries with the largest magnitude, ties included; all others become 0."""
    sizes = torch.cat([part.abs().flatten() for part in vector.values()])
    kept = max(1, round(density * len(sizes)))
    smallest = sizes.kthvalue(len(sizes) - kept + 1).values
    return {name: torch.where(part.abs() >= smallest, part, 0.0) for name, part in vector.items()}


def disjoint_mean(tau_N: Tensor) -> Tensor:
    """Steps 2 and 3: gamma = sgn(sum_i tau_i), and the mean of the entries of that sign; [N, ...] -> [...].

    If the entries cancel exactly, no sign is elected and the base's weight stays.
    """
    sign = tau_N.sum(0).sign()
    agrees_N = (tau_N.sign() == sign) & (tau_N != 0)
    return (tau_N * agrees_N).sum(0) / agrees_N.sum(0).clamp(min=1)
