"""Losses: what an update minimises. Each file is one loss: `build(settings, learner) -> Loss`.

`Loss.losses(model, batch) -> losses_B` is minimised in training. Validation computes the task's own cross-entropy, so
runs with different losses can be compared.
"""

from abc import ABC, abstractmethod

from torch import Tensor

from pipeline.contracts import Batch
from pipeline.model.gpt import GPT


class Loss(ABC):
    """A loss over the examples of a task; it may hold a reference model."""

    @abstractmethod
    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B in nats, with gradients."""
