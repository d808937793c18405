"""Squared error of the standardised target, for tasks that answer with a number."""

from typing import ClassVar

from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner, TaskProtocol
from pipeline.losses import Loss
from pipeline.model.gpt import GPT


class Settings(Section):
    """No settings."""

    takes: ClassVar[frozenset[str]] = frozenset({"number"})
    roles: ClassVar[frozenset[str]] = frozenset()


def build(_settings: Settings, learner: Learner) -> "SquaredError":
    """The task's own losses."""
    return SquaredError(learner.task)


class SquaredError(Loss):
    """Squared errors in squared standard deviations of the training targets."""

    def __init__(self, task: TaskProtocol) -> None:
        self._task = task

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B of the task."""
        return self._task.losses(model, batch)
