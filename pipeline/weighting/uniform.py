"""Every example counts the same."""

import torch
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.weighting import Weighting


class Settings(Section):
    """Nothing to set."""


def build(settings: Settings, learner: Learner) -> "Uniform":
    """The rule."""
    return Uniform()


class Uniform(Weighting):
    by_example = True

    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B of one."""
        return torch.ones_like(losses_B)
