"""Mixture of groups in given proportions: multi-task training, or new text with a replayed share of old text.

A group is the records with one value in a column (source, language, label). Mixing by given weights: Raffel et al.
2020, section 3.5.2. Groups that are not named are left out, of validation too.
"""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Learner, RecordExamples, groups
from pipeline.ordering import Ordering
from pipeline.seeds import seed_for


class Settings(Section):
    """Batch size, groups and their proportions."""

    records_only: ClassVar[bool] = True
    batch_size: Positive = Field(examples=[8])
    """Examples in a micro-batch."""
    column: str = Field(examples=["source"])
    """Column of the records whose values are the groups: source, language, label..."""
    shares: dict[str, Annotated[float, Field(gt=0)]] = Field(min_length=1, examples=[{"new": 3.0, "old": 1.0}])
    """Value of the column -> weight of its group, relative to the other groups."""


def build(settings: Settings, learner: Learner) -> "Mixture":
    """The ordering. Raises UserError if no record has such a column or a named value."""
    return Mixture(settings, learner.examples)


class Mixture(Ordering):
    """Draws from every group by its share."""

    def __init__(self, settings: Settings, examples: RecordExamples) -> None:
        self.settings, self.batch_size = settings, settings.batch_size
        weights = np.array(list(settings.shares.values()))
        self._shares = weights / weights.sum()
        self._members = list(groups(examples, settings.column, list(settings.shares), "ordering.shares").values())

    def rows(self, _n_examples: int, step: int, seed: int) -> np.ndarray:
        """rows_B: multinomial counts per group, then examples drawn uniformly, without repeats if the group is large
        enough.
        """
        rng = np.random.default_rng(seed_for(seed, "mixture", step))
        counts = rng.multinomial(self.batch_size, self._shares)
        drawn = [
            rng.choice(members, count, replace=len(members) < count)
            for members, count in zip(self._members, counts, strict=True)
        ]
        return np.concatenate(drawn)

    def validation_rows(self, examples: RecordExamples) -> np.ndarray:
        """Indices of the named groups' examples, interleaved so that every prefix has about the given shares.

        A group without validation examples is left out; if no group has any, all examples are used.
        """
        known = set(examples.column(self.settings.column))
        shares = {
            value: share for value, share in zip(self.settings.shares, self._shares, strict=True) if value in known
        }
        if not shares:
            return super().validation_rows(examples)
        members = groups(examples, self.settings.column, list(shares), "ordering.shares").values()
        n = min(len(rows) / share for rows, share in zip(members, shares.values(), strict=True))
        places = [(np.arange(round(n * share)) + 0.5) / share for share in shares.values()]
        rows = np.concatenate([rows[: len(at)] for rows, at in zip(members, places, strict=True)])
        return rows[np.argsort(np.concatenate(places), kind="stable")]
