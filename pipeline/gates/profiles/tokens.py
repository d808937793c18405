"""data/tokens for the gates: ids and index read in parts, never mapped or held, and the tokenizer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.data.external import DiskArray, in_order
from pipeline.data.tables import batches
from pipeline.data.unencodable import REJECTIONS_FILE, UNENCODABLE_SCHEMA
from pipeline.errors import UserError
from pipeline.gates._rules import MOST_EXAMPLES, Example, Tally

_CHUNK = 1 << 18
_PARTS = ("ids.bin", "index.parquet", "meta.json", "tokenizer")
_COLUMNS = ["start", "length", "bytes"]
Int64s = npt.NDArray[np.int64]


class IdFile:
    """A file of little-endian token ids, maybe empty."""

    def __init__(self, path: Path, dtype: str) -> None:
        """Opens nothing yet. Raises UserError where the file's size is no whole number of ids."""
        self.path, self.dtype = path, np.dtype(dtype).newbyteorder("<")
        size = path.stat().st_size
        if size % self.dtype.itemsize:
            raise UserError(f"{path}: {size} bytes, expected whole ids of {dtype}; run `dvc repro tokenize --force`")
        self._count = size // self.dtype.itemsize

    def __len__(self) -> int:
        return self._count

    def read(self, first: int, last: int) -> npt.NDArray[np.unsignedinteger]:
        """Ids `first` to `last` - 1, shape (n); fewer where the file ends before."""
        first = max(first, 0)
        last = max(first, min(last, self._count))
        return np.fromfile(self.path, self.dtype, last - first, offset=first * self.dtype.itemsize)

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.unsignedinteger]]]:
        """All ids, a bounded number at a time, each chunk with the position of its first id."""
        for first in range(0, self._count, _CHUNK):
            yield first, self.read(first, first + _CHUNK)


class IndexRows(NamedTuple):
    """Rows of the index from number `first` on; arrays of shape (rows)."""

    first: int
    starts: Int64s
    lengths: Int64s
    sizes: Int64s
    """UTF-8 bytes of each text."""


@dataclass(frozen=True)
class TokenFolder:
    """data/tokens: the ids of all documents in one sequence, and an index of documents."""

    ids: IdFile
    index: Path
    meta: dict[str, Any]
    tokenizer: Any

    @classmethod
    def open(cls, folder: Path) -> "TokenFolder":
        """Opens data/tokens.

        Raises:
            UserError: a part is missing, or ids.bin is no whole number of ids.
        """
        from pipeline.tokenizer import Tokenizer

        for name in _PARTS:
            if not (folder / name).exists():
                raise UserError(f"{folder / name}: no such file; run `dvc repro tokenize`")
        meta = files.read_json(folder / "meta.json")
        ids = IdFile(folder / "ids.bin", str(meta["dtype"]))
        return cls(ids, folder / "index.parquet", meta, Tokenizer.load(folder / "tokenizer"))

    @cached_property
    def n_documents(self) -> int:
        """Rows of the index."""
        return int(pq.read_metadata(self.index).num_rows)

    def documents(self) -> Iterator[IndexRows]:
        """The index, a bounded number of rows at a time."""
        first = 0
        for batch in batches(self.index, _COLUMNS):
            numbers = [batch[name].to_numpy().astype(np.int64) for name in _COLUMNS]
            yield IndexRows(first, *numbers)
            first += len(batch)

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary, special tokens included."""
        return int(self.meta["vocab_size"])

    @property
    def end_of_text(self) -> int:
        """The id after every document."""
        return int(self.meta["end_of_text"])

    @property
    def specials_by_name(self) -> dict[str, int]:
        """Special tokens and their ids."""
        return dict(self.tokenizer.special)

    def name_of(self, number: int) -> str:
        """A special token's name, or its number."""
        return next((name for name, other in self.specials_by_name.items() if other == number), str(number))

    def outside_vocabulary(self) -> Iterator[tuple[Int64s, Int64s]]:
        """Positions and values of the ids that are not below vocab_size, chunk by chunk."""
        for first, chunk in self.ids.chunks():
            at = np.flatnonzero(chunk >= self.vocab_size)
            yield first + at, chunk[at].astype(np.int64)

    def specials(self) -> Iterator[tuple[int, Int64s, Int64s]]:
        """Chunk by chunk: the position after it, and positions and values of its special tokens.

        The token of unknown text comes out of text, so it is none of them.
        """
        special = np.array(sorted({*self.specials_by_name.values(), self.end_of_text} - {self.tokenizer.unknown}))
        least, most = special[0], special[-1]
        for first, chunk in self.ids.chunks():
            at = np.flatnonzero((chunk >= least) & (chunk <= most))
            at = at[np.isin(chunk[at], special)]
            yield first + len(chunk), first + at, chunk[at].astype(np.int64)

    def counts(self) -> Int64s:
        """Number of occurrences of each id, shape (vocab_size)."""
        total = np.zeros(self.vocab_size, np.int64)
        for _, chunk in self.ids.chunks():
            total += np.bincount(chunk[chunk < self.vocab_size], minlength=self.vocab_size)
        return total

    def ends(self, folder: Path) -> "DocumentEnds":
        """Position of every document's last id; `folder`: for temporary files."""
        return DocumentEnds(self.documents(), folder)

    def decoded(self, start: int, length: int) -> bytes:
        """The UTF-8 text of a document, decoded from its ids without the end-of-text token."""
        ids = self.ids.read(start, start + max(length - 1, 0))
        if (ids >= self.vocab_size).any():
            return b""  # reported by the expectation on ids_outside_vocabulary; there is no text to decode
        return bytes(self.tokenizer.decode_bytes(ids.tolist()))

    def library_agrees(self, text: str, start: int, length: int) -> bool:
        """Whether a document's ids are those that the tokenizers library gives for its text.

        True also where the library finds a special token in the text, which the vocabulary here never does.
        """
        expected = self.tokenizer.library_ids(text)
        if not (set(self.specials_by_name.values()) - {self.tokenizer.unknown}).isdisjoint(expected):
            return True
        return bool(np.array_equal(self.ids.read(start, start + max(length - 1, 0)), expected))

    def rejections(self) -> pa.Table:
        """The documents that the vocabulary cannot encode: row, id, reason, detail."""
        path = self.index.with_name(REJECTIONS_FILE)
        return pq.ParquetFile(path).read() if path.exists() else UNENCODABLE_SCHEMA.empty_table()

    def tally(self, tally: Tally, rows: Sequence[int], fault: Callable[[int], str]) -> None:
        """Adds documents to a tally; `fault` describes a row and is called for shown documents only."""
        tally.add_rows(rows, lambda row: self.document_example(row, fault(row)))

    def tally_places(self, tally: Tally, places: Int64s, faults: Sequence[str]) -> None:
        """Adds positions of the ids file to a tally, each with the description of its fault."""
        shown = min(MOST_EXAMPLES - len(tally.examples), len(places))
        for place, fault in zip(places[:shown].tolist(), faults, strict=False):
            row = sum(int((part.starts <= place).sum()) for part in self.documents()) - 1
            tally.add(self.document_example(max(row, 0), f"token {place}: {fault}"))
        tally.count += len(places) - shown

    def document_example(self, row: int, fault: str) -> Example:
        """An example of a document, by its row in the index."""
        return Example(id_at(self.index, row), f"data/tokens/index.parquet:{row + 1}", fault)


class DocumentEnds:
    """Positions of the documents' last ids, ascending, with the documents' numbers."""

    def __init__(self, documents: Iterable[IndexRows], folder: Path) -> None:
        """Reads the index once; positions lie in a temporary file in `folder`, sorted where they are not ascending."""
        self.outside: list[Int64s] = []
        """Numbers of documents whose last id would lie before the file: empty ones at its start."""
        positions, before, ascending = DiskArray(folder, np.uint64, 2), -1, True
        for part in documents:
            last = part.starts + part.lengths - 1
            if (last < 0).any():
                self.outside.append(part.first + np.flatnonzero(last < 0))
            rows = np.flatnonzero(last >= 0)
            if len(rows):
                ascending = ascending and last[rows[0]] >= before and bool((np.diff(last[rows]) >= 0).all())
                before = last[rows[-1]]
            positions.append(np.column_stack([last[rows], part.first + rows]).astype(np.uint64))
        self._parts = positions.parts() if ascending else in_order(positions)
        self._waiting = np.empty((0, 2), np.uint64)

    def before(self, place: int) -> tuple[Int64s, Int64s]:
        """The ends before a position that earlier calls have not returned, and their documents' numbers."""
        taken = []
        while True:
            n = int(np.searchsorted(self._waiting[:, 0], np.uint64(place)))
            taken.append(self._waiting[:n])
            self._waiting = self._waiting[n:]
            if len(self._waiting) or (more := next(self._parts, None)) is None:
                break
            self._waiting = more
        ends = np.concatenate(taken).astype(np.int64)
        return ends[:, 0], ends[:, 1]


def id_at(path: Path, row: int) -> str:
    """The id of one row of a parquet file; empty where it has no such row."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                return str(file.read_row_group(group, columns=["id"])["id"][row].as_py())
            row -= rows
    return ""
