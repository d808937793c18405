"""Poisson sampling: every example joins every batch independently, as differentially private training assumes.

Abadi et al. 2016, section 3.1 ("lots"): each of n examples is drawn with probability batch_size / n, so a batch may be
larger or smaller than batch_size, or empty.
"""

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Learner
from pipeline.ordering import Ordering
from pipeline.seeds import seed_for


class Settings(Section):
    """Expected batch size."""

    batch_size: Positive = Field(examples=[8])
    """Expected number of examples in a micro-batch."""


def build(settings: Settings, _learner: Learner) -> "Poisson":
    """The ordering of these settings."""
    return Poisson(settings.batch_size)


class Poisson(Ordering):
    """Independent draws of every example."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """Indices of the drawn examples, ascending; all of them if batch_size is n_examples or more."""
        draws = np.random.default_rng(seed_for(seed, "poisson", step)).random(n_examples)
        return np.flatnonzero(draws * n_examples < self.batch_size)
