"""Token ids on disk as the gates see them: a memory map read in chunks, its index, and its tokenizer."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config import UserError
from pipeline.gates._rules import Example

_CHUNK = 1 << 22
_PARTS = ("ids.bin", "index.parquet", "meta.json", "tokenizer")


@dataclass(frozen=True)
class Tokens:
    """data/tokens: ids, one after the other, and per document where they lie."""

    ids: npt.NDArray[np.unsignedinteger]
    names: list[str]
    """Record id of each document."""
    languages: list[str]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    """UTF-8 bytes of each text."""
    meta: dict[str, Any]
    tokenizer: Any

    @classmethod
    def open(cls, folder: Path) -> "Tokens":
        """Opens data/tokens.

        Raises:
            UserError: a part is missing, or ids.bin is no whole number of ids.
        """
        from pipeline.tokenizer import Tokenizer

        for name in _PARTS:
            if not (folder / name).exists():
                raise UserError(f"{folder / name}: no such file; run `dvc repro tokenize`")
        meta = files.read_json(folder / "meta.json")
        index = pq.read_table(folder / "index.parquet", columns=["id", "language", "start", "length", "bytes"])
        numbers = {name: index.column(name).to_numpy().astype(np.int64) for name in ("start", "length", "bytes")}
        return cls(
            ids=ids_of(folder / "ids.bin", str(meta["dtype"])),
            names=index.column("id").to_pylist(),
            languages=index.column("language").to_pylist(),
            starts=numbers["start"],
            lengths=numbers["length"],
            sizes=numbers["bytes"],
            meta=meta,
            tokenizer=Tokenizer.load(folder / "tokenizer"),
        )

    @property
    def vocab_size(self) -> int:
        """Ids that exist, special tokens included."""
        return int(self.meta["vocab_size"])

    @property
    def end_of_text(self) -> int:
        """The id that code places after every document."""
        return int(self.meta["end_of_text"])

    @property
    def specials_by_name(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return dict(self.tokenizer.special)

    def name_of(self, number: int) -> str:
        """A special token's name, or its number."""
        return next((name for name, other in self.specials_by_name.items() if other == number), str(number))

    def outside_vocabulary(self) -> Iterator[tuple[int, int]]:
        """Place and value of every id that is not below vocab_size."""
        return self._where(lambda chunk: chunk >= self.vocab_size)

    def specials(self) -> Iterator[tuple[int, int]]:
        """Place and value of every special token in the ids."""
        special = np.zeros(
            1 << (8 * self.ids.dtype.itemsize) if self.ids.dtype.itemsize < 4 else self._largest + 1, bool
        )
        special[[number for number in {*self.specials_by_name.values(), self.end_of_text} if number < len(special)]] = (
            True
        )
        return self._where(lambda chunk: special[chunk])

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each id of the vocabulary occurs, shape (vocab_size)."""
        total = np.zeros(self.vocab_size, np.int64)
        for first in range(0, len(self.ids), _CHUNK):
            chunk = self.ids[first : first + _CHUNK]
            total += np.bincount(chunk[chunk < self.vocab_size], minlength=self.vocab_size)
        return total

    def decoded(self, row: int) -> bytes:
        """The text of a document as its ids give it back, the end-of-text token left out."""
        start = int(self.starts[row])
        ids = self.ids[start : start + max(int(self.lengths[row]) - 1, 0)]
        if (ids >= self.vocab_size).any():
            return b""  # the vocabulary rule names it; there is nothing to decode
        return bytes(self.tokenizer.decode_bytes(ids.tolist()))

    def example(self, at: int, says: str) -> Example:
        """The document in which a place in the ids file lies."""
        row = int(np.searchsorted(self.starts, at, side="right")) - 1
        return self.document_example(max(row, 0), f"token {at}: {says}")

    def document_example(self, row: int, says: str) -> Example:
        """A document and what is wrong with it."""
        name = self.names[row] if row < len(self.names) else ""
        return Example(name, f"data/tokens/index.parquet:{row + 1}", says)

    @cached_property
    def _largest(self) -> int:
        return max((int(self.ids[i : i + _CHUNK].max()) for i in range(0, len(self.ids), _CHUNK)), default=0)

    def _where(self, test: Any) -> Iterator[tuple[int, int]]:
        for first in range(0, len(self.ids), _CHUNK):
            chunk = np.asarray(self.ids[first : first + _CHUNK])
            for place in np.flatnonzero(test(chunk)).tolist():
                yield first + place, int(chunk[place])


def ids_of(path: Path, dtype: str) -> npt.NDArray[np.unsignedinteger]:
    """A file of little-endian ids as a read-only memory map; an empty file as an empty array."""
    kind = np.dtype(dtype).newbyteorder("<")
    size = path.stat().st_size
    if size % kind.itemsize:
        raise UserError(f"{path}: {size} bytes, expected whole ids of {dtype}; run `dvc repro tokenize --force`")
    return np.memmap(path, kind, mode="r") if size else np.empty(0, kind)
