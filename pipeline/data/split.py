"""Train, validation and test split of records: by a stable hash of the record or of its group, or by time.

By hash: a place in [0, 1) is a hash of (seed, id), or of (seed, group), so that all records of a group, of every kind
and source, are in one split. Test is [0, test), validation is [1 - validation, 1), training the rest: new records move
no old one, and a larger share moves records from training into that share only.

By time: the latest records of a kind are test, those before them validation. Both splits begin at the time that brings
their number of records nearest to their shares; records of one time are in one split. New data moves the cut points.

A split that the source pinned takes precedence. A record without a group or a time is split by the hash of its content,
a twin (column `twin_of`) as the record that it was made of, and a record of a journal by the hash of its prompt (column
`prompt_id`), so that all ratings of a prompt, and what is made of them, are in one split.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.config.params import Split
from pipeline.data.records import GROUP, PROMPT, TIME, TWIN
from pipeline.data.tables import batches
from pipeline.errors import UserError

SplitName = Literal["train", "validation", "test"]
_KEYS: dict[str, str | None] = {"record": None, "group": GROUP, "time": TIME}
"""Value of `split.by` -> the column that decides."""


def split_of(key: str, split: Split) -> SplitName:
    """The split that the hash of (`split.seed`, `key`) gives; `key`: a record's id, or its group."""
    place = _place(split.seed, key)
    if place < split.test:
        return "test"
    return "validation" if place >= 1 - split.validation else "train"


def resolve(key: str, pinned: str | None, split: Split) -> SplitName:
    """The record's split: pinned by its source, else given by the hash."""
    return cast(SplitName, pinned) if pinned is not None else split_of(key, split)


def resolve_column(keys: pa.Array | pa.ChunkedArray, pinned: pa.Array | pa.ChunkedArray, split: Split) -> pa.Array:
    """`resolve` for columns: a string column without nulls, of the same length and order as both."""
    pairs: Iterable[tuple[str, str | None]] = zip(keys.to_pylist(), pinned.to_pylist(), strict=True)
    return pa.array([resolve(key, pin, split) for key, pin in pairs], type=pa.string())


@dataclass(frozen=True)
class CutPoints:
    """Earliest times of the held-out splits, as in column `time`; null for a split without records."""

    validation: str | None
    test: str | None


@dataclass(frozen=True)
class Splits:
    """The split of every record of one kind."""

    split: Split
    key: str | None
    """Column that decides, group or time; null: the records' ids, as for a kind that has no such column."""
    cuts: CutPoints | None = None
    """With key `time`."""
    anchors: tuple[str, ...] = ()
    """Columns of the kind that stand for the id, the first that has a value: of a twin's record, of a prompt."""

    @classmethod
    def of(cls, path: Path, split: Split) -> "Splits":
        """Reads a kind's parquet file as far as its splits depend on it: not at all but by time.

        Memory: by time, eight bytes per record.

        Raises:
            UserError: by time, with fewer different times than splits.
        """
        key, names = _KEYS[split.by], pq.read_schema(path).names
        anchors = tuple(name for name in (TWIN, PROMPT) if name in names)
        if key is None or key not in names:
            return cls(split, None, anchors=anchors)
        return cls(split, key, _cut_points(path, split) if key == TIME else None, anchors)

    @property
    def columns(self) -> list[str]:
        """The columns that `column` reads."""
        return ["id", "split", *([self.key] if self.key else []), *self.anchors]

    def column(self, batch: pa.RecordBatch) -> pa.Array:
        """The split of each record of a batch, a string column without nulls."""
        keys = pc.coalesce(*(batch[name] for name in self.anchors), batch["id"])
        if self.key is not None and self.cuts is None:
            keys = pc.coalesce(batch[self.key], keys)
        by_hash = resolve_column(keys, batch["split"], self.split)
        if self.cuts is None:
            return by_hash
        return pc.coalesce(batch["split"], self._by_time(batch[TIME]), by_hash)

    def without_key(self, batch: pa.RecordBatch) -> int:
        """Number of records without a group or a time, which the hash of their content splits."""
        if self.key is None:
            return 0
        return int(pc.sum(pc.and_(batch[self.key].is_null(), batch["split"].is_null())).as_py() or 0)

    def _by_time(self, times: pa.Array) -> pa.Array:
        """The split of each time; null where there is none. Times have equal lengths, so they compare as texts."""
        assert self.cuts is not None
        names: pa.Array = pa.repeat(pa.scalar("train"), len(times))
        for name, cut in (("validation", self.cuts.validation), ("test", self.cuts.test)):
            if cut is not None:
                names = pc.if_else(pc.greater_equal(times, cut), name, names)
        return pc.if_else(times.is_valid(), names, pa.scalar(None, pa.string()))


def _cut_points(path: Path, split: Split) -> CutPoints:
    """The cut points of the records that are not pinned; twins do not count."""
    seconds = [np.empty(0, np.int64)]
    empty = ["split", *([TWIN] if TWIN in pq.read_schema(path).names else [])]
    for batch in batches(path, [TIME, *empty]):
        counted = reduce(pc.and_, (batch[name].is_null() for name in empty))
        times = batch[TIME].filter(counted).drop_null()
        seconds.append(times.cast(pa.timestamp("s", "UTC")).cast(pa.int64()).to_numpy())
    moments, counts = np.unique(np.concatenate(seconds), return_counts=True)
    n, end = int(counts.sum()), len(moments)
    shares = {name: share for name, share in (("test", split.test), ("validation", split.validation)) if share}
    if 0 < end <= len(shares):
        raise UserError(
            f"params.yaml: split.by is time, and the {n:,} records of kind {path.stem} have {end} different times; "
            f"expected {len(shares) + 1} or more, one for each split: set split.by to record, or pin the records"
        )
    cuts: dict[str, str] = {}
    for kept, (name, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        if n:
            latest = np.cumsum(counts[kept:end][::-1])  # records of the last moment, of the last two, ...
            end -= int(np.argmin(np.abs(latest - share * n))) + 1
            cuts[name] = f"{np.datetime64(int(moments[end]), 's')}Z"
    return CutPoints(cuts.get("validation"), cuts.get("test"))


def _place(seed: int, key: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    # 53 bits: every value is exact in a float and below 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
