"""Distinct values of a column (labels, languages) with the number of records of each, in bounded memory.

A column of ids taken for labels has as many values as rows: the counts lie in a temporary file and are sorted there,
and a profile table lists at most MOST_VALUES values; the others are added up.
"""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.data.external import DiskArray, Words, group_starts, in_order
from pipeline.data.tables import batches
from pipeline.gates.profiles.texts import decodable

MOST_VALUES = 1000
Int64s = npt.NDArray[np.int64]


class Rest(NamedTuple):
    """Values that a table does not list one by one."""

    values: int
    records: int
    fewest: int
    """Records of the rarest of them."""


class DistinctValues:
    """Number of records of every distinct value. Values are compared by 64 bits of their BLAKE2b hash.

    Two of a million values have an equal hash with a probability of 3e-8.
    """

    def __init__(self, folder: Path) -> None:
        """Starts without a value; `folder`: for the temporary file."""
        self._counts = DiskArray(folder, np.uint64, 3)  # hash, first record, records, of each batch's values

    def add(self, values: pa.Array, first: int) -> Words:
        """Counts the values of records `first` and following, without nulls; returns their hashes, shape (records)."""
        coded = values.dictionary_encode()
        codes = coded.indices.to_numpy()
        hashes = np.array([_hash(value) for value in coded.dictionary.to_pylist()], np.uint64)
        _, places = np.unique(codes, return_index=True)
        counts = np.bincount(codes, minlength=len(hashes))
        columns = (hashes, first + places, counts)  # each cast by itself: numpy stacks uint64 and int64 as floats
        self._counts.append(np.column_stack([column.astype(np.uint64) for column in columns]))
        return np.asarray(hashes[codes], np.uint64)

    def number(self) -> int:
        """Number of distinct values."""
        return sum(len(counts) for _, _, counts in self._groups())

    def rarest(self, file: Path, column: str, fewest: int) -> tuple[dict[str, int], Rest, Rest]:
        """The MOST_VALUES rarest values with their numbers of records, and the rest of them.

        Args:
            file: the parquet file that was counted, from which the values are read.
            column: its column.
            fewest: the rest is split into values with fewer records than that, and the others.
        """
        return self._listed(file, column, -1, fewest)

    def most_frequent(self, file: Path, column: str) -> tuple[dict[str, int], Rest]:
        """The MOST_VALUES most frequent values with their numbers of records, and the rest; see `rarest`."""
        listed, _, rest = self._listed(file, column, 1, 0)
        return listed, rest

    def counts_of(self, values: list[str]) -> dict[str, int]:
        """Number of records of chosen values."""
        found = dict.fromkeys(values, 0)
        by_hash = {_hash(value): value for value in values}
        wanted = np.array(sorted(by_hash), np.uint64)
        for hashes, _, counts in self._groups():
            for place in np.flatnonzero(np.isin(hashes, wanted)).tolist():
                found[by_hash[int(hashes[place])]] = int(counts[place])
        return found

    def _groups(self) -> Iterator[tuple[Words, Int64s, Int64s]]:
        """Hashes of distinct values, the first record of each and the number of its records, in parts."""
        for part in in_order(self._counts):
            starts = group_starts(part)
            if len(starts):
                counts = np.add.reduceat(part[:, 2], starts).astype(np.int64)
                yield part[starts, 0], part[starts, 1].astype(np.int64), counts

    def _listed(self, file: Path, column: str, sign: int, fewest: int) -> tuple[dict[str, int], Rest, Rest]:
        """The first values in the order of sign * count (most frequent first for 1), and the two rests."""
        kept = np.empty((0, 2), np.int64)
        rare, other = Rest(0, 0, 0), Rest(0, 0, 0)
        for _, firsts, counts in self._groups():
            kept = np.concatenate([kept, np.column_stack([firsts, counts])])
            order = np.lexsort([kept[:, 0], -sign * kept[:, 1]])
            dropped = kept[order[MOST_VALUES:], 1]
            kept = kept[order[:MOST_VALUES]]
            rare, other = _more(rare, dropped[dropped < fewest]), _more(other, dropped[dropped >= fewest])
        kept = kept[np.argsort(kept[:, 0])]
        return dict(zip(_read(file, column, kept[:, 0]), kept[:, 1].tolist(), strict=True)), rare, other


def _more(rest: Rest, counts: Int64s) -> Rest:
    if not len(counts):
        return rest
    fewest = int(counts.min())
    return Rest(
        rest.values + len(counts), rest.records + int(counts.sum()), min(rest.fewest, fewest) if rest.values else fewest
    )


def _hash(value: str) -> int:
    return int.from_bytes(blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _read(file: Path, column: str, rows: Int64s) -> Iterator[str]:
    """The values at ascending row numbers of a parquet file; a null is an empty text."""
    first = 0
    for batch in batches(file, [column]) if len(rows) else ():
        inside = rows[(rows >= first) & (rows < first + len(batch))] - first
        values, _ = decodable(batch[column].take(pa.array(inside)).cast(pa.string()))
        yield from (value or "" for value in values.to_pylist())
        first += len(batch)
