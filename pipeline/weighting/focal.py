"""Focal weights: examples that are already right count less (Lin et al. 2017, equation 4).

w = (1 - p)^gamma, where p = exp(-loss) is the probability of the truth; a constant in the gradient, as class weights
are. Weights are relative within a micro-batch: with one example each they do nothing.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section


class Settings(Section):
    gamma: Annotated[float, Field(ge=0)]
    """0 weighs all alike; 2 in the paper."""


def build(settings: Settings, labels: Sequence[str]) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
    """weights_B of the losses."""

    def weights(losses_B: Tensor, batch: dict[str, Tensor]) -> Tensor:
        # a batch that is all right must not divide by zero
        return (1 - torch.exp(-losses_B.detach())).clamp(min=0).pow(settings.gamma).clamp(min=1e-12)

    return weights
