"""How much each example counts. Each file is one rule: `build(settings, learner) -> Weighting`."""

from abc import ABC, abstractmethod

from torch import Tensor

from pipeline.contracts import Batch


class Weighting(ABC):
    """Weights are relative within a micro-batch: with one example each they do nothing."""

    by_example = False
    """Whether each weight depends on its own example alone: private training takes no other rule."""
    memory: dict[str, Tensor]
    """What it must know after a resume; empty for rules that look at the batch alone."""

    def __init__(self) -> None:
        self.memory = {}

    @abstractmethod
    def weights(self, losses_B: Tensor, batch: Batch) -> Tensor:
        """weights_B, not negative and without gradients; all zero: the batch teaches nothing."""
