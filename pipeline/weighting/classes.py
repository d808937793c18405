"""Class weights: one weight per label, larger for rare or costly ones (King & Zeng 2001: by inverse frequency)."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner
from pipeline.errors import UserError
from pipeline.weighting import Weighting


class Settings(Section):
    """One weight per label."""

    by_example: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"classes"})
    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(examples=[{"ham": 1.0, "spam": 3.0}])
    """Label -> weight; every label has one."""


def build(settings: Settings, learner: Learner) -> "Classes":
    """The weighting of these settings.

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
    """Weights by label."""

    by_example = Settings.by_example

    def __init__(self, weights_C: Tensor) -> None:
        super().__init__()
        self._weights_C = weights_C

    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B: the weight of each example's label."""
        return self._weights_C.to(losses_B)[batch["targets"]]
