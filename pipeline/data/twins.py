"""Twins in stage sample: changed copies stay in training beside their records, and are left out anywhere else.

A twin is in the split of its record. It is left out where that is not training, and where its record was removed: a
copy of a contaminated record would bring the contamination back. Records are deduplicated as if there were no twins,
then twins against what is kept; a twin is never a duplicate of its own record or of that record's other twins.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline.data.contamination import Removals, Scope
from pipeline.data.placement import Placement, numbered
from pipeline.data.records import SPLITS, TWIN
from pipeline.data.tables import batches

OUTSIDE, ORPHAN = "twin_outside_training", "twin_of_removed"
"""Why a twin is left out, beside the reasons of deduplication."""
_TRAIN = SPLITS.index("train")


@dataclass(frozen=True)
class Twins:
    """The twins of one kind; arrays of shape (records)."""

    path: Path
    of: npt.NDArray[np.int64]
    """Row of a twin's record; -1 for records that are no twin, -2 where the record is missing."""

    @classmethod
    def read(cls, path: Path) -> "Twins | None":
        """The twins of a kind's parquet file; None where the kind has none."""
        if TWIN not in pq.read_schema(path).names:
            return None
        named = {name for batch in batches(path, [TWIN]) for name in batch[TWIN].to_pylist() if name is not None}
        if not named:
            return None
        rows: dict[str, int] = {}
        for first, batch in numbered(batches(path, ["id"])):
            for row, identity in enumerate(batch["id"].to_pylist(), first):
                if identity in named:
                    rows.setdefault(identity, row)
        of = np.full(pq.read_metadata(path).num_rows, -1, np.int64)
        for first, batch in numbered(batches(path, [TWIN])):
            for row, name in enumerate(batch[TWIN].to_pylist(), first):
                if name is not None:
                    of[row] = rows.get(name, -2)
        return cls(path, of)

    def deduplicated(self, places: Placement, find: Callable[[Scope], Removals]) -> tuple[Removals, dict[str, Any]]:
        """Removals of records and twins, and the counts of twins for the ledger; marks left-out twins in `places`.

        Args:
            places: all records; those that are not kept take no part, and `kept` of left-out twins becomes false.
            find: deduplication of the records in a scope.
        """
        twins, gone = self.of != -1, ~places.kept
        families = np.where(self.of >= 0, self.of, np.arange(len(self.of)))
        removed = find(Scope(absent=twins | gone, families=families, last=twins))
        outside = twins & ~gone & (places.splits != _TRAIN)
        gone[removed.rows] = True
        orphans = twins & ~gone & ~outside & ((self.of == -2) | gone[self.of])
        places.kept[outside | orphans] = False
        late = find(Scope(absent=gone | outside | orphans, families=families, last=twins))
        assert twins[late.rows].all(), "a twin never removes a record"
        both = removed.joined(late)
        return both, self._counts(places, both, outside, orphans)

    def _counts(
        self, places: Placement, removed: Removals, outside: npt.NDArray[np.bool_], orphans: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Rows of the ledger: twins in training, their share of it, and left-out ones by reason and source."""
        kept = places.kept.copy()
        kept[removed.rows] = False
        trained = kept & (places.splits == _TRAIN)
        in_training = int(np.count_nonzero(trained & (self.of != -1)))
        left_out: Counter[str] = Counter()
        for first, batch in numbered(batches(self.path, ["source"])):
            rows = np.flatnonzero((outside | orphans)[first : first + len(batch)])
            left_out.update(batch["source"][int(row)].as_py() for row in rows)
        return {
            "kept": in_training,
            "share_of_training": in_training / max(1, int(np.count_nonzero(trained))),
            OUTSIDE: int(np.count_nonzero(outside)),
            ORPHAN: int(np.count_nonzero(orphans)),
            "left_out": dict(sorted(left_out.items())),
        }
