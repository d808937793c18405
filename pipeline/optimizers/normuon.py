"""NorMuon: Muon with per-row second-moment normalisation (Li et al. 2025).

"NorMuon: Making Muon more efficient and scalable", algorithm 1: orthogonal updates still give some rows (neurons) far
larger updates than others, so every row is divided by the root of a moving mean of its own mean square. Each matrix
keeps the norm of Muon's update, so Muon's learning rates fit; the paper sets a norm of its own.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section, Share
from pipeline.optimizers import Muon


class Settings(Section):
    """Muon's settings, and the decay of the rows' second moments."""

    learning_rate: float = Field(gt=0, examples=[1e-2])
    """Peak for embeddings, heads and vectors (AdamW); the learning-rate schedule and a tuner's factors multiply it."""
    matrix_learning_rate: float = Field(gt=0, examples=[2e-2])
    """Peak for the matrices of the blocks (NorMuon)."""
    momentum: Share = Field(examples=[0.9])
    """Decay of the momentum of the matrices' gradients (Nesterov's form)."""
    matrix_beta2: Share = Field(examples=[0.95])
    """Decay of the moving mean of a row's mean square; 0.95 in the paper."""
    weight_decay: float = Field(ge=0, examples=[0.01])
    """Decoupled weight decay of matrices, times the learning rate."""
    beta1: Share = Field(examples=[0.9])
    """AdamW's decay of the first moment."""
    beta2: Share = Field(examples=[0.95])
    """AdamW's decay of the second moment."""
    epsilon: float = Field(gt=0, examples=[1e-8])
    """Added to the roots of the second moments."""


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """NorMuon over the matrices of the blocks among a tuner's groups, AdamW over embeddings, heads and vectors."""
    return NorMuon(settings, groups)


class NorMuon(Muon):
    """Muon with a second moment per row, [R]."""

    def __init__(self, settings: Settings, groups: list[dict[str, Any]]) -> None:
        self.matrix_beta2 = settings.matrix_beta2
        super().__init__(settings, groups)

    def rescale(self, updates_NRC: Tensor, weights: list[Tensor]) -> Tensor:
        """updates_NRC with every row normalised by its second moment, at the norm of the whole matrix."""
        squares_NR: Tensor = torch.linalg.vector_norm(updates_NRC, dim=-1).square() / updates_NRC.shape[-1]
        seconds = [self._state(p, "second", p.shape[:1]) for p in weights]
        torch._foreach_lerp_(seconds, squares_NR.unbind(), 1 - self.matrix_beta2)
        # A mean that starts at zero is too small by the same factor in every row; restoring the norm cancels it.
        shares_NR = 1 / (torch.stack(seconds).sqrt() + self.settings.epsilon)
        norm_N1 = (squares_NR * shares_NR.square()).sum(-1, keepdim=True).clamp(min=1e-30)  # all gradients may be zero
        factors_NR: Tensor = shares_NR * (squares_NR.sum(-1, keepdim=True) / norm_N1).sqrt()
        return updates_NRC * factors_NR[..., None]
