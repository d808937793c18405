"""Which examples come when. Each file is one order: `build(settings) -> Ordering`.

An order is a pure function of (seed, step): any step can be asked for and none needs the one before, which is what
makes a run resumable without saving the state of a random generator.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

Difficulty = Callable[[str], np.ndarray]
"""`length` or `loss` -> one number per training example, larger is harder."""


class Ordering(Protocol):
    batch_size: int

    def prepare(self, difficulty: Difficulty) -> None:
        """Learns about the examples what it needs, once and before training; often nothing."""

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B: the numbers of the examples of one micro-batch, int64."""
