"""External memory: arrays in temporary files, appended as a stream, read in parts or by row number, sorted.

The files have no name where the system allows it, so nothing is left behind however the process ends. They are read
with `pread` and not mapped, because mapped pages count as memory of the process for as long as the system has no other
use for them. Sorting is a radix partition into parts that fit in memory, then a sort of each part (Knuth, The Art of
Computer Programming, volume 3, section 5.2.5).
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PART = 1 << 15  # rows in memory at a time
Words = npt.NDArray[np.uint64]


class DiskArray:
    """A two-dimensional array in a temporary file: rows of `width` numbers of one type."""

    def __init__(self, folder: Path | None, dtype: npt.DTypeLike, width: int = 1) -> None:
        """Makes an empty array; `folder`: for the file, on a disk with room; None: the system's temporary folder."""
        self.dtype, self.width, self.folder = np.dtype(dtype), width, folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with this object
        self._size = width * self.dtype.itemsize
        self._count, self._unflushed = 0, False

    def __len__(self) -> int:
        return self._count

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Appends rows, shape (n, width), or (n) where width is 1."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self._count += rows.size // self.width
        self._unflushed = True

    def read(self, first: int, last: int) -> npt.NDArray[Any]:
        """Rows `first` to `last` - 1, shape (last - first, width)."""
        if self._unflushed:
            self._file.flush()
            self._unflushed = False
        wanted = (last - first) * self._size
        data = read_at(self._file.fileno(), wanted, first * self._size)
        return np.frombuffer(data, self.dtype).reshape(-1, self.width)

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows by their numbers, shape (rows, width); consecutive numbers are read at once."""
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = np.split(rows, cuts) if len(rows) else []
        parts = [self.read(int(run[0]), int(run[-1]) + 1) for run in runs]
        return np.concatenate(parts) if parts else np.empty((0, self.width), self.dtype)

    def parts(self) -> Iterator[npt.NDArray[Any]]:
        """All rows in order, PART of them at a time."""
        size = PART
        for first in range(0, self._count, size):
            yield self.read(first, min(first + size, self._count))

    def write_at(self, first: int, rows: npt.NDArray[Any]) -> None:
        """Writes rows from row number `first` on; only for an array without `append`."""
        data, place = memoryview(np.ascontiguousarray(rows, self.dtype).tobytes()), first * self._size
        while data:  # a nearly full disk takes a part, and raises at the next call
            written = os.pwrite(self._file.fileno(), data, place)
            data, place = data[written:], place + written
        self._count = max(self._count, first + len(rows))


class Digests(Sequence[bytes]):
    """A sequence of 16-byte digests on disk."""

    def __init__(self, folder: Path | None) -> None:
        self._rows = DiskArray(folder, np.uint8, 16)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < len(self._rows):
            raise IndexError(row)
        return self._rows.read(row, row + 1).tobytes()

    def append(self, digests: Sequence[bytes]) -> None:
        """Appends digests, each of 16 bytes."""
        self._rows.append(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))


def read_at(descriptor: int, size: int, place: int) -> bytes:
    """`size` bytes of an open file from the offset `place` on; fewer only at its end."""
    data = os.pread(descriptor, size, place)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), place + len(data))):
        data += more
    return data


def in_order(rows: DiskArray, keys: int = 1) -> Iterator[Words]:
    """The rows (64-bit unsigned numbers) in parts, stably sorted by their first `keys` columns.

    Rows with an equal first column are never in two parts, so a part can be as large as the largest such group where
    that has more than PART rows.
    """
    if len(rows) <= PART:
        yield _sorted(rows.read(0, len(rows)), keys)
        return
    largest = max(int(part[:, 0].max()) for part in rows.parts())
    bits = (len(rows) // PART).bit_length()
    shift = np.uint64(max(largest.bit_length() - bits, 0))
    counts = np.zeros(1 << bits, np.int64)
    for part in rows.parts():
        counts += np.bincount((part[:, 0] >> shift).astype(np.int64), minlength=len(counts))
    ends = np.cumsum(counts)
    free = ends - counts
    scattered = DiskArray(rows.folder, rows.dtype, rows.width)
    for part in rows.parts():
        targets = (part[:, 0] >> shift).astype(np.int64)
        order = np.argsort(targets, kind="stable")
        part, targets = part[order], targets[order]
        for run in np.split(np.arange(len(part)), np.flatnonzero(np.diff(targets)) + 1):
            bucket = int(targets[run[0]])
            scattered.write_at(int(free[bucket]), part[run[0] : run[-1] + 1])
            free[bucket] += len(run)
    for first, last in zip((ends - counts).tolist(), ends.tolist(), strict=True):
        if last > first:
            yield _sorted(scattered.read(first, last), keys)


def group_starts(part: Words, keys: int = 1) -> npt.NDArray[np.int64]:
    """First row of each group with equal values in the first `keys` columns, in a sorted part; shape (groups)."""
    if not len(part):
        return np.empty(0, np.int64)
    changes = (part[1:, :keys] != part[:-1, :keys]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def _sorted(part: Words, keys: int) -> Words:
    return part[np.lexsort([part[:, column] for column in reversed(range(keys))])]
