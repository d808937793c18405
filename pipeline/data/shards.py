"""The reading side of data/samples/documents: token ids as a memory map, windows over them, and batches by
number.

Nothing here holds state: which rows stand in the batch of a step is a pure function of (n, batch_size,
step, seed), so any step can be asked for and none needs the one before. No torch, so any process may read
shards.

Shapes: B rows of a batch, T = context_length. Source: a Feistel network as a shuffle of any n, by cycle
walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files, integrity
from pipeline.config.recipe import seed_for
from pipeline.data.hashing import mixed
from pipeline.errors import UserError

Int64s = npt.NDArray[np.int64]

_ROUNDS = 8


@dataclass(frozen=True)
class Shard:
    """One split's documents. Arrays have one entry per document, except `ids`: one per token."""

    split: str
    ids: npt.NDArray[np.unsignedinteger]
    """Every document's ids followed by the end-of-text id; a read-only memory map."""
    starts: Int64s
    """Where in `ids` each document starts."""
    lengths: npt.NDArray[np.int32]
    """Tokens, the end-of-text id included."""
    bytes: npt.NDArray[np.int32]
    """UTF-8 bytes of the text."""
    bits: npt.NDArray[np.float64]
    """Bits a perfect model of the source needs; NaN where nobody can know."""
    vocab_size: int
    end_of_text: int
    index_file: Path

    @classmethod
    def open(cls, folder: Path, split: str) -> "Shard":
        """Opens `<folder>/<split>.bin` and its index.

        Raises:
            UserError: no such file, one that differs from its recorded hash, or an ids file that has not the length
                its index says.
        """
        index_file, ids_file = folder / f"{split}.parquet", folder / f"{split}.bin"
        for file in (index_file, ids_file, folder / "meta.json"):
            if not file.exists():
                raise UserError(f"{file}: no such file; `dvc repro sample` makes it")
            integrity.require_intact(file)
        meta = files.read_json(folder / "meta.json")
        # pq.read_table would import pandas: half a second a stage
        index = pq.ParquetFile(index_file).read(columns=["start", "length", "bytes", "bits"])
        lengths = index["length"].to_numpy()
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        found, expected = ids_file.stat().st_size, int(lengths.sum(dtype=np.int64)) * dtype.itemsize
        if found != expected:
            raise UserError(
                f"{ids_file}: {found} bytes, its index says {expected}; it was damaged or half copied: "
                "delete data/samples and run `dvc checkout` or `dvc repro sample`"
            )
        ids = np.memmap(ids_file, dtype=dtype, mode="r") if found else np.empty(0, dtype)
        bits = index["bits"].to_numpy(zero_copy_only=False).astype(np.float64)
        return cls(
            split,
            ids,
            index["start"].to_numpy(),
            lengths,
            index["bytes"].to_numpy(),
            bits,
            meta["vocab_size"],
            meta["end_of_text"],
            index_file,
        )

    def __len__(self) -> int:
        """Documents."""
        return len(self.starts)

    def document(self, row: int) -> npt.NDArray[np.unsignedinteger]:
        """The ids of one document, its end-of-text id included; a view."""
        return self.ids[self.starts[row] : self.starts[row] + self.lengths[row]]

    def index(self) -> pa.Table:
        """The whole index (id, source, language, split, start, length, bytes, bits), read from disk."""
        return pq.ParquetFile(self.index_file).read()


@dataclass(frozen=True)
class Windows:
    """A split cut into windows of T inputs and the target after each: T + 1 ids, T new ones per window.

    Documents follow each other in one stream, parted by end-of-text ids. What is left at the end and fills
    no window is not trained on.
    """

    ids: npt.NDArray[np.unsignedinteger]
    context_length: int

    def __len__(self) -> int:
        return max(0, (len(self.ids) - 1) // self.context_length)

    def window(self, i: int) -> Int64s:
        """Ids of window `i`, shape (T + 1): inputs are [:-1], targets are [1:]."""
        return self.rows(np.array([i]))[0]

    def rows(self, rows_B: npt.ArrayLike) -> Int64s:
        """Ids of several windows, shape (B, T + 1), int64. Raises IndexError outside 0..len - 1."""
        rows = np.asarray(rows_B, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"windows are 0..{len(self) - 1}, asked for {rows.min()}..{rows.max()}")
        offsets = rows[:, None] * self.context_length + np.arange(self.context_length + 1)
        return self.ids[offsets].astype(np.int64)


def windows(shard: Shard, context_length: int) -> Windows:
    """The windows of a shard.

    Raises:
        UserError: the split is too short to fill one window.
    """
    found = Windows(shard.ids, context_length)
    if not len(found):
        raise UserError(
            f"the {shard.split} split holds {len(shard.ids)} tokens, less than one window of "
            f"context_length {context_length} + 1; give it more documents (download.sources, split) or a "
            "smaller pretrain.model.context_length in params.yaml"
        )
    return found


def batch_rows(n: int, batch_size: int, step: int, seed: int, rank: int = 0, world_size: int = 1) -> Int64s:
    """Which of `n` rows stand in the batch of a step, shape (batch_size / world_size).

    Batches are cut from an endless row of shuffles of 0..n-1, each with its own order: every row is seen
    once before any is seen twice, and a batch may span two shuffles. The ranks' parts, interleaved, are the
    batch of one rank.

    Raises:
        ValueError: nothing to draw from, or world_size does not divide batch_size.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"n {n} and batch_size {batch_size} must be positive, step {step} not negative")
    if batch_size % world_size or not 0 <= rank < world_size:
        raise ValueError(f"batch_size {batch_size} must be a multiple of world_size {world_size}, rank {rank} below it")
    positions = step * batch_size + np.arange(rank, batch_size, world_size, dtype=np.int64)
    epochs, places = np.divmod(positions, n)
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        at = epochs == epoch
        rows[at] = shuffled(n, places[at], seed_for(seed, "batches", int(epoch)))
    return rows


def shuffled(n: int, places: Int64s, seed: int) -> Int64s:
    """What stands at `places` of the shuffle of 0..n-1 that `seed` names, without making the whole shuffle.

    A Feistel network over the smallest even number of bits that holds n; what falls outside walks on until
    inside. Unlike numpy's Generator.permutation it costs nothing per epoch and is fixed for all versions of
    numpy.
    """
    half = max(2, ((n - 1).bit_length() + 1) // 2)
    keys = _round_keys(seed)
    values = _feistel(places.astype(np.uint64), half, keys)
    while len(outside := np.flatnonzero(values >= np.uint64(n))):
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


@lru_cache(maxsize=8)
def _round_keys(seed: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(seed_for(seed, number)) for number in range(_ROUNDS))


def _feistel(values: npt.NDArray[np.uint64], half: int, keys: tuple[np.uint64, ...]) -> npt.NDArray[np.uint64]:
    mask, shift = np.uint64((1 << half) - 1), np.uint64(half)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (mixed(right ^ key) & mask)
    return left << shift | right
