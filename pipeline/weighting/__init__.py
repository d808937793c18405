"""Example weights in the loss. Each file is one weighting: `build(settings, learner) -> Weighting`."""

from abc import ABC, abstractmethod

from torch import Tensor

from pipeline.contracts import Batch


class Weighting(ABC):
    """Example weights, relative within a micro-batch: in a micro-batch of one example they change nothing."""

    by_example = False
    """Whether each weight depends only on its own example; private training accepts no other weighting."""
    memory: dict[str, Tensor]
    """State that a resumed run needs; empty for weightings that depend only on the batch."""

    def __init__(self) -> None:
        self.memory = {}

    @abstractmethod
    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B, not negative and without gradients; if all are zero the micro-batch has no gradient."""
