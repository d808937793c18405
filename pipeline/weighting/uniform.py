"""Equal weights for all examples."""

from typing import ClassVar

import torch
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.weighting import Weighting


class Settings(Section):
    """No settings."""

    by_example: ClassVar[bool] = True


def build(_settings: Settings, _learner: Learner) -> "Uniform":
    """The weighting."""
    return Uniform()


class Uniform(Weighting):
    """Weights of one."""

    by_example = Settings.by_example
    uniform = True

    def weights(self, losses_B: Tensor, _batch: Batch) -> Tensor:
        """weights_B, all one."""
        return torch.ones_like(losses_B)
