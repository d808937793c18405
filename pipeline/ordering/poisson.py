"""Every example joins every batch by its own coin: the sampling that private training counts on.

Abadi et al. 2016, section 3.1 ("lots"): each example is drawn independently with probability batch_size / n, so a batch
may be larger or smaller than batch_size, or empty.
"""

import numpy as np

from pipeline.config.recipe import seed_for
from pipeline.config.section import Positive, Section
from pipeline.contracts import Learner
from pipeline.ordering import Ordering


class Settings(Section):
    batch_size: Positive
    """Expected number of examples in a micro-batch."""


def build(settings: Settings, learner: Learner) -> "Poisson":
    """The order of these settings."""
    return Poisson(settings.batch_size)


class Poisson(Ordering):
    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """The examples that join micro-batch `step`, in their order; all of them where batch_size is n or more."""
        coins = np.random.default_rng(seed_for(seed, "poisson", step)).random(n_examples)
        return np.flatnonzero(coins * n_examples < self.batch_size)
