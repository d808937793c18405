"""Shuffled epochs: every example once per epoch, in a new random order each time; the usual default."""

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Learner
from pipeline.data.shards import batch_rows
from pipeline.ordering import Ordering


class Settings(Section):
    """Batch size."""

    batch_size: Positive = Field(examples=[8])
    """Examples in a micro-batch."""


def build(settings: Settings, _learner: Learner) -> "Shuffled":
    """The ordering; the last batch of an epoch is filled up from the next epoch."""
    return Shuffled(settings.batch_size)


class Shuffled(Ordering):
    """Concatenated shuffles of all examples."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B: positions step*B to (step+1)*B of the concatenated shuffles."""
        return batch_rows(n_examples, self.batch_size, step, seed)
