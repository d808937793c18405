"""A weight for each class: rare or costly labels count more (King & Zeng 2001 weigh by inverse frequencies)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.errors import UserError
from pipeline.weighting import Weighting


class Settings(Section):
    weights: dict[str, Annotated[float, Field(gt=0)]]
    """Label -> weight, one for every label."""


def build(settings: Settings, learner: Learner) -> "Classes":
    """The rule.

    Raises:
        UserError: the weights do not name exactly the labels of the data.
    """
    if not learner.labels or set(settings.weights) != set(learner.labels):
        raise UserError(
            f"params.yaml: weighting.weights names {', '.join(sorted(settings.weights)) or 'no label'}; "
            f"the labels of the data are {', '.join(learner.labels) or 'none (it is for labelled records)'}"
        )
    return Classes(torch.tensor([settings.weights[label] for label in learner.labels]))


class Classes(Weighting):
    by_example = True

    def __init__(self, weights_C: Tensor) -> None:
        super().__init__()
        self._weights_C = weights_C

    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B by each example's label."""
        return self._weights_C.to(losses_B)[batch["targets"]]
