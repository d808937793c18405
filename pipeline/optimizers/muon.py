"""Muon: orthogonalized momentum for the matrices inside the blocks, AdamW for all other weights (Jordan et al. 2024).

The algorithm is `pipeline.optimizers.Muon`.
"""

from typing import Any

import torch
from pydantic import Field

from pipeline.config.section import Section, Share
from pipeline.optimizers import Muon


class Settings(Section):
    """Two learning rates, weight decay, and the moments' decay."""

    learning_rate: float = Field(gt=0, examples=[1e-2])
    """Peak for embeddings, heads and vectors (AdamW); the learning-rate schedule and a tuner's factors multiply it."""
    matrix_learning_rate: float = Field(gt=0, examples=[2e-2])
    """Peak for the matrices of the blocks (Muon)."""
    momentum: Share = Field(examples=[0.9])
    """Decay of the momentum of the matrices' gradients (Nesterov's form)."""
    weight_decay: float = Field(ge=0, examples=[0.01])
    """Decoupled weight decay of matrices, times the learning rate."""
    beta1: Share = Field(examples=[0.9])
    """AdamW's decay of the first moment."""
    beta2: Share = Field(examples=[0.95])
    """AdamW's decay of the second moment."""
    epsilon: float = Field(gt=0, examples=[1e-8])
    """Added to the root of AdamW's second moment."""


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Muon over the matrices of the blocks among a tuner's groups, AdamW over embeddings, heads and vectors."""
    return Muon(settings, groups)
