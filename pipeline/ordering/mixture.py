"""Groups of examples in given shares: several tasks learned at once, or new text with some of the old replayed.

A group is what the records say in one column (source, language, label). Mixing by given weights: Raffel et al. 2020,
section 3.5.2. Groups that are not named are left out, of validation too.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.config.recipe import seed_for
from pipeline.config.section import Positive, Section
from pipeline.contracts import Described, Learner, groups
from pipeline.ordering import Ordering


class Settings(Section):
    batch_size: Positive
    """Examples in a micro-batch."""
    column: str
    """Of the records: source, language, label..."""
    shares: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Value of the column -> how often its examples come, relative to the others."""


def build(settings: Settings, learner: Learner) -> "Mixture":
    """The order. Raises UserError when no record has such a column or a named value."""
    return Mixture(settings, learner.examples)


class Mixture(Ordering):
    def __init__(self, settings: Settings, examples: Described) -> None:
        self.settings, self.batch_size = settings, settings.batch_size
        weights = np.array(list(settings.shares.values()))
        self._shares = weights / weights.sum()
        self._members = list(groups(examples, settings.column, list(settings.shares), "ordering.shares").values())

    def rows(self, n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B: how many of each group is drawn by the shares, which ones evenly and without repeats in the batch."""
        rng = np.random.default_rng(seed_for(seed, "mixture", step))
        counts = rng.multinomial(self.batch_size, self._shares)
        drawn = [
            rng.choice(members, count, replace=len(members) < count)
            for members, count in zip(self._members, counts, strict=True)
        ]
        return np.concatenate(drawn)

    def validated(self, examples: Described) -> np.ndarray:
        """The named groups' examples, each group spread over the row as its share says.

        A group that validation has nothing of is left out there; where it has none of them, all examples count.
        """
        there = set(examples.column(self.settings.column))
        shares = {
            value: share for value, share in zip(self.settings.shares, self._shares, strict=True) if value in there
        }
        if not shares:
            return super().validated(examples)
        members = groups(examples, self.settings.column, list(shares), "ordering.shares").values()
        n = min(len(rows) / share for rows, share in zip(members, shares.values(), strict=True))
        places = [(np.arange(round(n * share)) + 0.5) / share for share in shares.values()]
        rows = np.concatenate([rows[: len(at)] for rows, at in zip(members, places, strict=True)])
        return rows[np.argsort(np.concatenate(places), kind="stable")]
