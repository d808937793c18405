"""Curriculum learning: examples are drawn from the easiest share of the data, which grows to all of it.

Bengio et al. 2009; the share ("competence") grows as in Platanios et al. 2019: `root` is their equation 7,
c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2)), `linear` their equation 6, `step` doubles at equal intervals.
"""

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Learner
from pipeline.errors import UserError
from pipeline.ordering import Ordering
from pipeline.seeds import seed_for


class Given(Section):
    """Difficulty by the values of a column."""

    column: str
    """Column of the records: source, language, label..."""
    easiest_first: list[str] = Field(min_length=2)
    """Every value of that column, from the easiest to the hardest."""


class Settings(Section):
    """Batch size, the measure of difficulty and the growth of the share."""

    records_only: ClassVar[bool] = True
    batch_size: Positive = Field(examples=[8])
    """Examples in a micro-batch."""
    difficulty: Literal["length", "loss", "given"] = Field(examples=["length"])
    """length: an example's tokens; loss: its loss under the start model; given: the order in `given`."""
    given: Given | None = Field(examples=[None])
    """The order for difficulty `given`; null otherwise."""
    shape: Literal["linear", "step", "root"] = Field(examples=["root", "linear", "step"])
    """Growth of the share over micro-batches."""
    start: float = Field(gt=0, le=1, examples=[0.1])
    """Share of the data at the first micro-batch; 0.01 in the paper."""
    full_after: Positive = Field(examples=[10])
    """Micro-batches until all data is drawn from."""


def build(settings: Settings, learner: Learner) -> "Curriculum":
    """The ordering of these settings over the learner's examples.

    Raises:
        UserError: `given` does not go with `difficulty`, or its values differ from the column's.
    """
    if (settings.given is None) == (settings.difficulty == "given"):
        raise UserError(
            f"params.yaml: ordering.difficulty is {settings.difficulty!r} and ordering.given is "
            f"{'null' if settings.given is None else 'set'}; `given` goes with difficulty given, and is null otherwise"
        )
    if settings.difficulty == "length":
        return Curriculum(settings, learner.lengths())
    if settings.difficulty == "loss":
        return Curriculum(settings, learner.all_losses())
    assert settings.given is not None
    return Curriculum(settings, _ranks(settings.given, learner))


def _ranks(given: Given, learner: Learner) -> np.ndarray:
    """ranks_N: the position of each example's value in the list."""
    if missing := sorted(set(learner.examples.column(given.column)) - set(given.easiest_first)):
        raise UserError(
            f"params.yaml: ordering.given.easiest_first lacks {', '.join(missing)}, which column {given.column!r} holds"
        )
    ranks = np.zeros(len(learner.examples))
    members = learner.groups(given.column, given.easiest_first, "ordering.given.easiest_first")
    for rank, value in enumerate(given.easiest_first):
        ranks[members[value]] = rank
    return ranks


class Curriculum(Ordering):
    """Uniform draws from the easiest share."""

    def __init__(self, settings: Settings, difficulty_N: np.ndarray) -> None:
        self.settings, self.batch_size = settings, settings.batch_size
        self._easiest = np.argsort(difficulty_N, kind="stable")  # ties keep the order of the file

    def competence(self, step: int) -> float:
        """The share of the data that micro-batch `step` draws from."""
        at, start = min(1.0, step / self.settings.full_after), self.settings.start
        if self.settings.shape == "linear":
            return start + at * (1 - start)
        if self.settings.shape == "step":
            doublings = max(1, math.ceil(math.log2(1 / start)))
            return min(1.0, start * 2.0 ** math.floor(at * doublings))
        return math.sqrt(at * (1 - start**2) + start**2)

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B drawn uniformly from the easiest share, without repeats if it is large enough."""
        n = max(1, math.ceil(self.competence(step) * n_examples))
        rng = np.random.default_rng(seed_for(seed, "curriculum", step))
        return self._easiest[rng.choice(n, self.batch_size, replace=n < self.batch_size)]
