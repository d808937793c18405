"""Binary cross-entropy of every label of a text, for tasks that answer with several labels."""

from typing import ClassVar

from torch import Tensor

from pipeline.config.section import Section
from pipeline.contracts import Batch, Learner, TaskProtocol
from pipeline.losses import Loss
from pipeline.model.gpt import GPT


class Settings(Section):
    """No settings."""

    takes: ClassVar[frozenset[str]] = frozenset({"labels"})
    roles: ClassVar[frozenset[str]] = frozenset()


def build(_settings: Settings, learner: Learner) -> "BinaryCrossEntropy":
    """The task's own losses."""
    return BinaryCrossEntropy(learner.task)


class BinaryCrossEntropy(Loss):
    """The mean over each example's labels."""

    def __init__(self, task: TaskProtocol) -> None:
        self._task = task

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B of the task, nats."""
        return self._task.losses(model, batch)
