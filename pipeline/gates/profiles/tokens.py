"""Token ids on disk as the gates see them: ids and index read in parts, never mapped or held, and the tokenizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pipeline import files
from pipeline.data.external import Rows, in_order
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.gates._rules import MOST_EXAMPLES, Example, Tally

_CHUNK = 1 << 18
_PARTS = ("ids.bin", "index.parquet", "meta.json", "tokenizer")
_COLUMNS = ["start", "length", "bytes"]
Int64s = npt.NDArray[np.int64]


class Ids:
    """A file of little-endian ids; an empty file has none."""

    def __init__(self, path: Path, dtype: str) -> None:
        """Raises UserError: the file is no whole number of ids."""
        self.path, self.dtype = path, np.dtype(dtype).newbyteorder("<")
        size = path.stat().st_size
        if size % self.dtype.itemsize:
            raise UserError(f"{path}: {size} bytes, expected whole ids of {dtype}; run `dvc repro tokenize --force`")
        self._count = size // self.dtype.itemsize

    def __len__(self) -> int:
        return self._count

    def read(self, first: int, last: int) -> npt.NDArray[np.unsignedinteger]:
        """Ids from `first` to before `last`, as far as the file has them."""
        first = max(first, 0)
        last = max(first, min(last, self._count))
        return np.fromfile(self.path, self.dtype, last - first, offset=first * self.dtype.itemsize)

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.unsignedinteger]]]:
        """All ids, a bounded number at a time, each with the place of its first."""
        for first in range(0, self._count, _CHUNK):
            yield first, self.read(first, first + _CHUNK)


class Documents(NamedTuple):
    """Rows of the index from number `first` on."""

    first: int
    starts: Int64s
    lengths: Int64s
    sizes: Int64s
    """UTF-8 bytes of each text."""


@dataclass(frozen=True)
class Tokens:
    """data/tokens: ids, one after the other, and per document where they lie."""

    ids: Ids
    index: Path
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
        ids = Ids(folder / "ids.bin", str(meta["dtype"]))
        return cls(ids, folder / "index.parquet", meta, Tokenizer.load(folder / "tokenizer"))

    @cached_property
    def n_documents(self) -> int:
        """Rows of the index."""
        return int(pq.read_metadata(self.index).num_rows)

    def documents(self) -> Iterator[Documents]:
        """The index, a bounded number of rows at a time."""
        first = 0
        for batch in batches(self.index, _COLUMNS):
            numbers = [batch[name].to_numpy().astype(np.int64) for name in _COLUMNS]
            yield Documents(first, *numbers)
            first += len(batch)

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

    def outside_vocabulary(self) -> Iterator[tuple[Int64s, Int64s]]:
        """Places and values of the ids that are not below vocab_size, chunk by chunk."""
        for first, chunk in self.ids.chunks():
            at = np.flatnonzero(chunk >= self.vocab_size)
            yield first + at, chunk[at].astype(np.int64)

    def specials(self) -> Iterator[tuple[int, Int64s, Int64s]]:
        """Chunk by chunk, the place after it, and places and values of the special tokens in it."""
        special = np.array(sorted({*self.specials_by_name.values(), self.end_of_text}))
        least, most = special[0], special[-1]
        for first, chunk in self.ids.chunks():
            at = np.flatnonzero((chunk >= least) & (chunk <= most))
            at = at[np.isin(chunk[at], special)]
            yield first + len(chunk), first + at, chunk[at].astype(np.int64)

    def counts(self) -> Int64s:
        """How often each id of the vocabulary occurs, shape (vocab_size)."""
        total = np.zeros(self.vocab_size, np.int64)
        for _, chunk in self.ids.chunks():
            total += np.bincount(chunk[chunk < self.vocab_size], minlength=self.vocab_size)
        return total

    def ends(self, folder: Path) -> "Ends":
        """Where each document ends; `folder` for temporary files."""
        return Ends(self.documents(), folder)

    def decoded(self, start: int, length: int) -> bytes:
        """The text of a document as its ids give it back, the end-of-text token left out."""
        ids = self.ids.read(start, start + max(length - 1, 0))
        if (ids >= self.vocab_size).any():
            return b""  # the vocabulary rule names it; there is nothing to decode
        return bytes(self.tokenizer.decode_bytes(ids.tolist()))

    def tally(self, tally: Tally, rows: Iterable[int], says: Callable[[int], str]) -> None:
        """Counts documents that offend; what is wrong is asked of those alone that are shown."""
        for row in rows:
            if len(tally.examples) < MOST_EXAMPLES:
                tally.add(self.document_example(row, says(row)))
            else:
                tally.count += 1

    def tally_places(self, tally: Tally, places: Int64s, says: Sequence[str]) -> None:
        """The same of places in the ids file, with what is wrong at each."""
        shown = min(MOST_EXAMPLES - len(tally.examples), len(places))
        for at, text in zip(places[:shown].tolist(), says, strict=False):
            row = sum(int((part.starts <= at).sum()) for part in self.documents()) - 1
            tally.add(self.document_example(max(row, 0), f"token {at}: {text}"))
        tally.count += len(places) - shown

    def document_example(self, row: int, says: str) -> Example:
        """A document and what is wrong with it."""
        return Example(id_at(self.index, row), f"data/tokens/index.parquet:{row + 1}", says)


class Ends:
    """The place of the last id of every document, ascending, and the number of the document."""

    def __init__(self, documents: Iterable[Documents], folder: Path) -> None:
        self.outside: list[Int64s] = []
        """Documents without such a place: nothing in them, before the file."""
        found, before, ascending = Rows(folder, np.uint64, 2), -1, True
        for part in documents:
            last = part.starts + part.lengths - 1
            if (last < 0).any():
                self.outside.append(part.first + np.flatnonzero(last < 0))
            rows = np.flatnonzero(last >= 0)
            if len(rows):
                ascending = ascending and last[rows[0]] >= before and bool((np.diff(last[rows]) >= 0).all())
                before = last[rows[-1]]
            found.append(np.column_stack([last[rows], part.first + rows]).astype(np.uint64))
        self._parts = found.parts() if ascending else in_order(found)
        self._waiting = np.empty((0, 2), np.uint64)

    def before(self, place: int) -> tuple[Int64s, Int64s]:
        """The ends before a place that no earlier call gave, and their documents."""
        taken = []
        while True:
            n = int(np.searchsorted(self._waiting[:, 0], np.uint64(place)))
            taken.append(self._waiting[:n])
            self._waiting = self._waiting[n:]
            if len(self._waiting) or (more := next(self._parts, None)) is None:
                break
            self._waiting = more
        found = np.concatenate(taken).astype(np.int64)
        return found[:, 0], found[:, 1]


def id_at(path: Path, row: int) -> str:
    """The id of one row of a parquet file; empty beyond its end."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                return str(file.read_row_group(group, columns=["id"])["id"][row].as_py())
            row -= rows
    return ""
