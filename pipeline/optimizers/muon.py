"""Muon for the matrices inside the blocks, AdamW for everything else.

Jordan et al. 2024; the rule itself, which its kin share, is pipeline.optimizers.Muon.
"""

from typing import Annotated, Any

import torch
from pydantic import Field

from pipeline.config.section import Section, Share
from pipeline.optimizers import Muon


class Settings(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak for embeddings, heads and vectors (AdamW); the schedule and a tuner's factors multiply it."""
    matrix_learning_rate: Annotated[float, Field(gt=0)]
    """Peak for the matrices of the blocks (Muon)."""
    momentum: Share
    weight_decay: Annotated[float, Field(ge=0)]
    """On matrices, decoupled, times the learning rate."""
    beta1: Share
    beta2: Share
    epsilon: Annotated[float, Field(gt=0)]


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Muon over the matrices of the blocks among a tuner's groups, AdamW over tables, heads and vectors."""
    return Muon(settings, groups)
