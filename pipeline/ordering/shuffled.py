"""Epoch after epoch in an order shuffled anew: the default of the field."""

import numpy as np

from pipeline.config.section import Positive, Section
from pipeline.contracts import Learner
from pipeline.data.shards import batch_rows
from pipeline.ordering import Ordering


class Settings(Section):
    batch_size: Positive
    """Examples in a micro-batch."""


def build(settings: Settings, learner: Learner) -> "Shuffled":
    """The order; a batch that an epoch cannot fill takes its rest from the next epoch."""
    return Shuffled(settings.batch_size)


class Shuffled(Ordering):
    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B of micro-batch `step`: places step*B to (step+1)*B of the endless row of shuffles."""
        return batch_rows(n_examples, self.batch_size, step, seed)
