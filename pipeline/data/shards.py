"""Reader of data/samples/documents: memory-mapped token ids, windows over them, and batches by step number.

Stateless: the rows of a step's batch are a pure function of (n, batch_size, step, seed), so any step can be computed
without the one before. No torch, so any process may read shards.

Shapes: B rows of a batch, T = context_length. Source: a Feistel network as a shuffle of any n, by cycle walking (Black
and Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files, integrity
from pipeline.data.hashing import mixed
from pipeline.errors import UserError
from pipeline.seeds import seed_for

Int64s = npt.NDArray[np.int64]

_ROUNDS = 8


@dataclass(frozen=True)
class Shard:
    """One split's documents. Arrays have shape (documents), except `ids`: (tokens)."""

    split: str
    ids: npt.NDArray[np.unsignedinteger]
    """Every document's ids followed by the end-of-text id; a read-only memory map."""
    starts: Int64s
    """Offset of each document in `ids`."""
    lengths: npt.NDArray[np.int32]
    """Tokens, the end-of-text id included."""
    bytes: npt.NDArray[np.int32]
    """UTF-8 bytes of the text."""
    bits: npt.NDArray[np.float64]
    """Information content -log2 p(text) under the source's own distribution; NaN where it is unknown."""
    vocab_size: int
    end_of_text: int
    index_file: Path

    @classmethod
    def open(cls, folder: Path, split: str) -> "Shard":
        """Opens `<folder>/<split>.bin` and its index.

        Raises:
            UserError: a missing file, one that differs from its recorded hash, or an ids file of another length than
                its index gives.
        """
        index_file, ids_file = folder / f"{split}.parquet", folder / f"{split}.bin"
        for file in (index_file, ids_file, folder / "meta.json"):
            if not file.exists():
                raise UserError(f"{file}: no such file; `dvc repro sample` makes it")
            integrity.require_intact(file)
        meta = files.read_json(folder / "meta.json")
        # pq.read_table would import pandas, half a second per stage.
        index = pq.ParquetFile(index_file).read(columns=["start", "length", "bytes", "bits"])
        lengths = index["length"].to_numpy()
        dtype = np.dtype(meta["dtype"]).newbyteorder("<")
        size, expected = ids_file.stat().st_size, int(lengths.sum(dtype=np.int64)) * dtype.itemsize
        if size != expected:
            raise UserError(
                f"{ids_file}: has {size} bytes, expected {expected} by its index; it is damaged or was copied in part: "
                "delete data/samples and run `dvc checkout` or `dvc repro sample`"
            )
        ids = np.memmap(ids_file, dtype=dtype, mode="r") if size else np.empty(0, dtype)
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
        """Number of documents."""
        return len(self.starts)

    def document(self, row: int) -> npt.NDArray[np.unsignedinteger]:
        """The ids of one document with its end-of-text id, shape (tokens); a view."""
        return self.ids[self.starts[row] : self.starts[row] + self.lengths[row]]

    def index(self) -> pa.Table:
        """The whole index (id, source, language, split, start, length, bytes, bits, added columns), read from disk."""
        return pq.ParquetFile(self.index_file).read()


@dataclass(frozen=True)
class Windows:
    """A split packed into windows of T + 1 ids, T inputs and their targets; consecutive windows overlap by one id.

    Documents are concatenated, separated by end-of-text ids. A last, incomplete window is dropped.
    """

    ids: npt.NDArray[np.unsignedinteger]
    context_length: int

    def __len__(self) -> int:
        return max(0, (len(self.ids) - 1) // self.context_length)

    def window(self, i: int) -> Int64s:
        """Ids of window `i`, shape (T + 1): inputs are [:-1], targets are [1:]."""
        window: Int64s = self.rows(np.array([i]))[0]
        return window

    def rows(self, rows_B: npt.ArrayLike) -> Int64s:
        """Ids of several windows, shape (B, T + 1), int64. Raises IndexError outside 0..len - 1."""
        rows = np.asarray(rows_B, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"windows are 0..{len(self) - 1}, asked for {rows.min()}..{rows.max()}")
        offsets = rows[:, None] * self.context_length + np.arange(self.context_length + 1)
        return np.asarray(self.ids[offsets], dtype=np.int64)


def windows(shard: Shard, context_length: int) -> Windows:
    """The windows of a shard.

    Raises:
        UserError: the split is too short to fill one window.
    """
    packed = Windows(shard.ids, context_length)
    if not len(packed):
        raise UserError(
            f"the {shard.split} split has {len(shard.ids)} tokens, expected at least one window of "
            f"context_length {context_length} + 1; give it more documents (download.sources, split) or a "
            "smaller pretrain.model.context_length in params.yaml"
        )
    return packed


def batch_rows(  # noqa: PLR0913 - a pure function has all of its inputs as arguments
    n: int, batch_size: int, step: int, seed: int, rank: int = 0, world_size: int = 1
) -> Int64s:
    """Row numbers of a step's batch out of `n` rows, shape (batch_size / world_size).

    Batches are consecutive parts of a concatenation of epochs, each with its own shuffle of 0..n-1: every row occurs
    once per epoch, and a batch may span two epochs. The ranks' parts, interleaved, are the batch of a single process.

    Args:
        n: number of rows.
        batch_size: rows per step, over all ranks.
        step: step number from 0 on.
        seed: names the shuffles.
        rank: this process, from 0 on.
        world_size: number of processes.

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
    """Elements at `places` of a pseudorandom permutation of 0..n-1, same shape, without computing the rest of it.

    A Feistel network over the smallest even number of bits that holds n, with cycle walking for values of n and more.
    Unlike numpy's Generator.permutation it costs nothing per epoch and is equal in all versions of numpy.
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
