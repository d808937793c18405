"""Placement of a kind's records: the split of each and whether deduplication keeps it, three bytes per record."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config.params import Split
from pipeline.data.records import SPLITS
from pipeline.data.split import Splits
from pipeline.data.tables import batches


@dataclass(frozen=True)
class Placement:
    """Arrays with one entry per record of a kind, in file order."""

    splits: npt.NDArray[np.uint8]
    """Indices into SPLITS."""
    pinned: npt.NDArray[np.bool_]
    """Whether the source pinned the record to its split."""
    kept: npt.NDArray[np.bool_]
    rule: dict[str, Any]
    """How they were split, for the row counts: `by`, cut points, records without a group or time; empty: by record."""

    def __len__(self) -> int:
        return len(self.splits)

    def mask(self, split: str, first: int, last: int) -> pa.Array:
        """Mask of the records `first` to `last` - 1 that are kept and belong to a split."""
        return pa.array(self.kept[first:last] & (self.splits[first:last] == SPLITS.index(split)))

    def names(self, first: int, last: int) -> pa.Array:
        """Split names of the records `first` to `last` - 1."""
        return pa.array(SPLITS).take(pa.array(self.splits[first:last]))


def placement(path: Path, split: Split) -> Placement:
    """The placement of a kind's records before deduplication: all are kept."""
    n = pq.read_metadata(path).num_rows
    by = Splits.of(path, split)
    places = Placement(np.empty(n, np.uint8), np.empty(n, np.bool_), np.ones(n, np.bool_), _rule(by))
    for first, batch in numbered(batches(path, by.columns)):
        resolved = by.column(batch)
        if by.key is not None:
            places.rule[f"without_{by.key}"] += by.without_key(batch)
        rows = slice(first, first + len(batch))
        places.splits[rows] = pc.index_in(resolved, pa.array(SPLITS)).to_numpy()
        places.pinned[rows] = batch["split"].is_valid().to_numpy(zero_copy_only=False)
    return places


def _rule(by: Splits) -> dict[str, Any]:
    if by.key is None:
        return {}
    cuts = {} if by.cuts is None else {"validation_from": by.cuts.validation, "test_from": by.cuts.test}
    return {"by": by.key, **cuts, f"without_{by.key}": 0}


def numbered(several: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch with the number of its first row."""
    first = 0
    for batch in several:
        yield first, batch
        first += len(batch)
