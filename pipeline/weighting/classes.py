"""A weight for each class: rare or costly labels count more (King & Zeng 2001 weigh by inverse frequencies).

Weights are relative within a micro-batch: with one example each they do nothing.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section, UserError


class Settings(Section):
    weights: dict[str, Annotated[float, Field(gt=0)]]
    """Label -> weight, one for every label."""


def build(settings: Settings, labels: Sequence[str]) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
    """weights_B by each example's label.

    Raises:
        UserError: the weights do not name exactly the labels of the data.
    """
    if not labels or set(settings.weights) != set(labels):
        raise UserError(
            f"params.yaml: weighting.weights names {', '.join(sorted(settings.weights)) or 'no label'}; "
            f"the labels of the data are {', '.join(labels) or 'none (it is for labelled records)'}"
        )
    table_C = torch.tensor([settings.weights[label] for label in labels])

    def weights(losses_B: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return table_C.to(losses_B)[batch["targets"]]

    return weights
