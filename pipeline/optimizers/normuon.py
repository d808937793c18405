"""NorMuon: Muon, its step shared out alike among the neurons of a matrix.

Li et al. 2025, "NorMuon: Making Muon more efficient and scalable", algorithm 1: orthogonal updates still give some rows
(neurons) far longer steps than others, so every row is divided by the root of a moving mean of its own mean square.
The whole keeps the length that Muon gave it, so that Muon's rates fit; the paper sets a length of its own.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section, Share
from pipeline.optimizers import Muon


class Settings(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    """Peak for embeddings, heads and vectors (AdamW); the schedule and a tuner's factors multiply it."""
    matrix_learning_rate: Annotated[float, Field(gt=0)]
    """Peak for the matrices of the blocks."""
    momentum: Share
    matrix_beta2: Share
    """Of the moving mean of a row's squares; the paper's is 0.95."""
    weight_decay: Annotated[float, Field(ge=0)]
    """On matrices, decoupled, times the learning rate."""
    beta1: Share
    beta2: Share
    epsilon: Annotated[float, Field(gt=0)]


def build(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """NorMuon over the matrices of the blocks among a tuner's groups, AdamW over tables, heads and vectors."""
    return NorMuon(settings, groups)


class NorMuon(Muon):
    """Muon with a second moment per row, [R]."""

    def __init__(self, settings: Settings, groups: list[dict[str, Any]]) -> None:
        self.matrix_beta2 = settings.matrix_beta2
        super().__init__(settings, groups)

    def shared_out(self, updates_NRC: Tensor, params: list[Tensor]) -> Tensor:
        squares_NR = torch.linalg.vector_norm(updates_NRC, dim=-1).square() / updates_NRC.shape[-1]
        seconds = [self._state(p, "second", p.shape[:1]) for p in params]
        torch._foreach_lerp_(seconds, squares_NR.unbind(), 1 - self.matrix_beta2)
        # A mean that began at zero is too small by the same factor in every row: it goes with the length.
        shares_NR = 1 / (torch.stack(seconds).sqrt() + self.settings.epsilon)
        length_N1 = (squares_NR * shares_NR.square()).sum(-1, keepdim=True).clamp(min=1e-30)  # no gradient at all
        kept_NR = shares_NR * (squares_NR.sum(-1, keepdim=True) / length_N1).sqrt()
        return updates_NRC * kept_NR[..., None]
