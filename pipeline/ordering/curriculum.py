"""Easy examples first: at every step examples come from the easiest share of the data, which grows to all of it.

Bengio et al. 2009; the share ("competence") grows as in Platanios et al. 2019: `root` is their equation 7,
c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2)), `linear` their equation 6, `step` doubles in equal strides.
"""

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.config import Positive, Section, seed_for
from pipeline.ordering import Difficulty


class Settings(Section):
    batch_size: Positive
    """Examples in a micro-batch."""
    difficulty: Literal["length", "loss"]
    """Tokens of an example, or what the start model pays for it."""
    shape: Literal["linear", "step", "root"]
    start: Annotated[float, Field(gt=0, le=1)]
    """Share of the data at the first micro-batch; 0.01 in the paper."""
    full_after: Positive
    """Micro-batches until everything is drawn from."""


def build(settings: Settings) -> "Curriculum":
    """The order of these settings; `prepare` must see the examples first."""
    return Curriculum(settings)


class Curriculum:
    def __init__(self, settings: Settings) -> None:
        self.settings, self.batch_size = settings, settings.batch_size
        self._easiest: np.ndarray | None = None

    def prepare(self, difficulty: Difficulty) -> None:
        """Sorts the examples once; equal ones keep their order."""
        self._easiest = np.argsort(difficulty(self.settings.difficulty), kind="stable")

    def competence(self, step: int) -> float:
        """The share of the data that micro-batch `step` draws from."""
        at, start = min(1.0, step / self.settings.full_after), self.settings.start
        if self.settings.shape == "linear":
            return start + at * (1 - start)
        if self.settings.shape == "step":
            doublings = max(1, math.ceil(math.log2(1 / start)))
            return min(1.0, start * 2 ** math.floor(at * doublings))
        return math.sqrt(at * (1 - start**2) + start**2)

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B drawn evenly, without repeats while there are enough, from the easiest share."""
        assert self._easiest is not None, "prepare() must see the examples first"
        n = max(1, math.ceil(self.competence(step) * n_examples))
        rng = np.random.default_rng(seed_for(seed, "curriculum", step))
        return self._easiest[rng.choice(n, self.batch_size, replace=n < self.batch_size)]
