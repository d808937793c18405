"""Which split a record belongs to: a pure function of its id and the split's params, known before anything
is read.

A record's place in [0, 1) is a hash of (seed, id). Test takes [0, test), validation takes [1 - validation,
1), and training what lies between: adding records moves no old record, and enlarging one share moves only
records out of training into that share. A split that the source pinned wins over the hash.
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
    """The split a record ends in: the one its source pinned it to, else the hash's."""
    return cast(SplitName, pinned) if pinned is not None else split_of(record_id, split)


def resolve_column(ids: pa.Array | pa.ChunkedArray, pinned: pa.Array | pa.ChunkedArray, split: Split) -> pa.Array:
    """`resolve` over two columns of a record table; a string column, no nulls, same length and order."""
    pairs: Iterable[tuple[str, str | None]] = zip(ids.to_pylist(), pinned.to_pylist(), strict=True)
    return pa.array([resolve(record_id, at, split) for record_id, at in pairs], type=pa.string())


def _place(seed: int, record_id: str) -> float:
    digest = hashlib.blake2b(f"{seed}\0{record_id}".encode(), digest_size=8).digest()
    # 53 bits: every value is exact in a float and below 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
