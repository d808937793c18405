"""Samplers: the examples of every micro-batch. Each file is one ordering: `build(settings, learner) -> Ordering`.

An ordering is a pure function of (seed, step): any step can be computed without the one before, so a run resumes
without the saved state of a random generator.
"""

from abc import ABC, abstractmethod

import numpy as np

from pipeline.contracts import RecordExamples


class Ordering(ABC):
    """A sampler of training examples, and the choice of validation examples."""

    batch_size: int
    """Examples in a micro-batch (for `poisson` their expected number); also the batch size of validation."""

    @abstractmethod
    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B: indices of the examples of micro-batch `step`, int64."""

    def validation_rows(self, examples: RecordExamples) -> np.ndarray:
        """Indices of the validation examples in the order of their use: all of them, in the order of the file."""
        return np.arange(len(examples))
