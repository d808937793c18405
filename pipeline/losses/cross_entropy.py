"""Cross-entropy of the task's targets."""

from typing import ClassVar

from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner, TaskProtocol
from pipeline.losses import Loss
from pipeline.model.gpt import GPT


class Settings(Section):
    """No settings."""

    takes: ClassVar[frozenset[str]] = frozenset({"tokens", "classes"})
    roles: ClassVar[frozenset[str]] = frozenset()


def build(_settings: Settings, learner: Learner) -> "CrossEntropy":
    """The task's own losses."""
    return CrossEntropy(learner.task)


class CrossEntropy(Loss):
    """The mean over each example's predicted positions."""

    def __init__(self, task: TaskProtocol) -> None:
        self._task = task

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B of the task, nats."""
        return self._task.losses(model, batch)
