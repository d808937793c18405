"""Example weights in the loss. Each file is one weighting: `build(settings, learner) -> Weighting`."""

from abc import ABC, abstractmethod

from torch import Tensor

from pipeline.contracts import Batch


class Weighting(ABC):
    """Example weights, relative within an update: a factor on all of its weights changes nothing."""

    by_example = False
    """Whether each weight depends only on its own example; private training accepts no other weighting."""
    uniform = False
    """Whether every weight is one."""
    by_update = False
    """Whether a weight depends on the other examples of the update: `begin` is called before its first micro-batch."""
    memory: dict[str, Tensor]
    """State that a resumed run needs; empty for weightings that depend only on the batch."""

    def __init__(self) -> None:
        self.memory = {}

    def begin(self, update: list[Batch]) -> list[Batch]:
        """All micro-batches of an update, before the first; returns them. Called if `by_update`, and of several."""
        return update

    @abstractmethod
    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B, not negative and without gradients; if all of an update are zero it has no gradient."""
