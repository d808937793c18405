"""Focal loss weights: examples that the model already gets right have smaller weights (Lin et al. 2017, equation 4).

w = (1 - p)^gamma, where p = exp(-loss) is the probability of the target; w is a constant in the gradient.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.weighting import Weighting


class Settings(Section):
    """Strength of the focus."""

    by_example: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"tokens", "classes", "labels"})
    gamma: float = Field(ge=0, examples=[2.0])
    """Exponent; 0 gives equal weights, the paper uses 2."""


def build(settings: Settings, _learner: Learner) -> "Focal":
    """The weighting of these settings."""
    return Focal(settings.gamma)


class Focal(Weighting):
    """Weights by loss."""

    by_example = Settings.by_example

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def weights(self, losses_B: Tensor, _batch: Batch) -> Tensor:
        """weights_B from the losses; equal where every loss is zero."""
        return (1 - torch.exp(-losses_B.detach())).clamp(min=0).pow(self.gamma).clamp(min=1e-12)
