"""Which examples come when. Each file is one order: `build(settings, learner) -> Ordering`.

An order is a pure function of (seed, step): any step can be asked for and none needs the one before, which is what
makes a run resumable without saving the state of a random generator.
"""

from abc import ABC, abstractmethod

import numpy as np

from pipeline.contracts import Described


class Ordering(ABC):
    batch_size: int

    @abstractmethod
    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B: the numbers of the examples of one micro-batch, int64."""

    def validated(self, examples: Described) -> np.ndarray:
        """Which validation examples count, in the order they are taken: all, as they stand."""
        return np.arange(len(examples))
