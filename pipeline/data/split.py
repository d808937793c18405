"""Train, validation and test split by a stable hash: a pure function of a record's id and the split's params.

A record's place in [0, 1) is a hash of (seed, id). Test is [0, test), validation is [1 - validation, 1), training the
rest: new records move no old one, and a larger share moves records from training into that share only. A split that the
source pinned takes precedence over the hash.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal, cast

import pyarrow as pa

from pipeline.config.params import Split

SplitName = Literal["train", "validation", "test"]


def split_of(record_id: str, split: Split) -> SplitName:
    """The split that the hash of (`split.seed`, `record_id`) gives."""
    place = _place(split.seed, record_id)
    if place < split.test:
        return "test"
    return "validation" if place >= 1 - split.validation else "train"


def resolve(record_id: str, pinned: str | None, split: Split) -> SplitName:
    """The record's split: pinned by its source, else given by the hash."""
    return cast(SplitName, pinned) if pinned is not None else split_of(record_id, split)


def resolve_column(ids: pa.Array | pa.ChunkedArray, pinned: pa.Array | pa.ChunkedArray, split: Split) -> pa.Array:
    """`resolve` for columns: a string column without nulls, of the same length and order as both."""
    pairs: Iterable[tuple[str, str | None]] = zip(ids.to_pylist(), pinned.to_pylist(), strict=True)
    return pa.array([resolve(record_id, pin, split) for record_id, pin in pairs], type=pa.string())


def _place(seed: int, record_id: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{record_id}".encode(), digest_size=8).digest()
    # 53 bits: every value is exact in a float and below 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
