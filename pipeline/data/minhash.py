"""MinHash signatures of shingle sets, locality-sensitive hashing into buckets, and sets that share buckets.

Sources: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, chapter 3 (banding: 1 - (1 - t^r)^b); Dietzfelbinger 1996, "Universal hashing and k-wise independent random
variables via integer arithmetic" (multiply-shift permutations). Sets are known by their numbers: 0, 1, ...
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.config.params import Deduplicate
from pipeline.data.external import DiskArray, group_starts, in_order
from pipeline.data.hashing import mixed
from pipeline.seeds import seed_for

_MISS = 0.01  # probability that a pair exactly at the threshold shares no bucket


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(bands, rows per band): the longest bands with which a pair at the threshold shares a bucket with p >= 0.99.

    Longer bands propose fewer pairs below the threshold. A false proposal costs only time, as the true similarity
    decides, but a pair without a common bucket is lost: so misses are bounded first, then false proposals minimised.
    """
    for rows in range(permutations, 1, -1):
        count = permutations // rows
        if (1 - threshold**rows) ** count <= _MISS:
            return count, rows
    return permutations, 1


class Signatures:
    """MinHash: the minimum of each permutation of a set's hashes."""

    def __init__(self, settings: Deduplicate) -> None:
        seeds = [seed_for(settings.seed, "minhash", i) for i in range(2 * settings.permutations)]
        values = mixed(np.array(seeds, dtype=np.uint64))
        self._multiply, self._add = values[0::2] | np.uint64(1), values[1::2]
        self.permutations = settings.permutations

    def of(self, shingles: npt.NDArray[np.uint32], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Signatures, shape (sets, permutations); zeros for empty sets.

        Args:
            shingles: hashes of all sets, one set after the other, shape (hashes).
            sizes: number of hashes of each set, shape (sets).
        """
        signatures = np.zeros((len(sizes), len(self._multiply)), np.uint32)
        filled = np.flatnonzero(sizes)
        if len(filled):
            starts = (np.cumsum(sizes) - sizes)[filled]
            wide = shingles.astype(np.uint64)
            for column, (multiply, add) in enumerate(zip(self._multiply, self._add, strict=True)):
                signatures[filled, column] = np.minimum.reduceat(wide * multiply + add >> np.uint64(32), starts)
        return signatures


class Bands:
    """The bucket of every set in every band: the hash of that part of its signature."""

    def __init__(self, folder: Path | None, count: int, rows: int) -> None:
        self._folder, self._count, self._rows = folder, count, rows
        self._keys = DiskArray(folder, np.uint64)  # batch after batch, and band after band within one
        self._filled = DiskArray(folder, np.bool_)
        self._batches: list[int] = []

    def add(self, signatures: npt.NDArray[np.uint32], filled: npt.NDArray[np.bool_]) -> None:
        """Adds the next sets by their signatures; sets that are not `filled` are empty and in no bucket."""
        for band in range(self._count):
            keys = np.zeros(len(signatures), np.uint64)
            for column in range(band * self._rows, (band + 1) * self._rows):
                keys = mixed(keys ^ signatures[:, column])
            self._keys.append(keys)
        self._filled.append(filled)
        self._batches.append(len(filled))

    def shared(self, counts: npt.NDArray[np.bool_]) -> DiskArray:
        """Pairs (set, bucket) of all buckets with two sets or more, sorted by bucket.

        Sets for which `counts` is false are left out; shape of `counts`: (sets).
        """
        pairs, used = DiskArray(self._folder, np.uint64, 2), 0
        for band in range(self._count):
            for part in in_order(self._keyed(band, counts)):
                starts = group_starts(part)
                sizes = np.diff(starts, append=len(part))
                bucket = np.repeat(np.arange(len(starts)) + used, sizes)
                shared = np.repeat(sizes > 1, sizes)
                pairs.append(np.stack([part[shared, 1], bucket[shared].astype(np.uint64)], axis=1))
                used += len(starts)
        return pairs

    def _keyed(self, band: int, counts: npt.NDArray[np.bool_]) -> DiskArray:
        """Pairs (key, set) of one band for the sets that count."""
        keyed, first = DiskArray(self._folder, np.uint64, 2), 0
        for size in self._batches:
            start = first * self._count + band * size
            keys = self._keys.read(start, start + size)[:, 0]
            chosen = np.flatnonzero(self._filled.read(first, first + size)[:, 0] & counts[first : first + size])
            keyed.append(np.stack([keys[chosen], (chosen + first).astype(np.uint64)], axis=1))
            first += size
        return keyed


def families(pairs: DiskArray, sets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Connected components of sets that share buckets: per set, the index of its component's first set.

    Label propagation: each round gives every member of a bucket the bucket's least label, until none changes.

    Args:
        pairs: (set, bucket), sorted by bucket.
        sets: all sets in `pairs`, ascending.
    """
    labels = np.arange(len(sets))
    before: npt.NDArray[np.int64] | None = None
    while before is None or (labels != before).any():
        before = labels.copy()
        last = np.empty((0, 2), np.uint64)  # of the part before: its bucket may continue here
        for part in pairs.parts():
            part = np.concatenate([last, part])
            starts = group_starts(part[:, 1:])
            places = np.searchsorted(sets, part[:, 0].astype(np.int64))
            least = np.minimum.reduceat(labels[places], starts)
            np.minimum.at(labels, places, np.repeat(least, np.diff(starts, append=len(part))))
            last = part[-1:]
        labels = labels[labels]
    return labels
