"""Focal weights: examples that are already right count less (Lin et al. 2017, equation 4).

w = (1 - p)^gamma, where p = exp(-loss) is the probability of the truth; a constant in the gradient, as class weights
are.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.weighting import Weighting


class Settings(Section):
    gamma: Annotated[float, Field(ge=0)]
    """0 weighs all alike; 2 in the paper."""


def build(settings: Settings, learner: Learner) -> "Focal":
    """The rule of these settings."""
    return Focal(settings.gamma)


class Focal(Weighting):
    by_example = True

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B of the losses; a batch that is all right weighs its examples alike."""
        return (1 - torch.exp(-losses_B.detach())).clamp(min=0).pow(self.gamma).clamp(min=1e-12)
