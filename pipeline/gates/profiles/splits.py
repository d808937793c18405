"""data/samples for its gate: the records of a kind as a stream, split after split, and examples of records.

Documents are stored as token ids; their texts are decoded again, so the gate compares the text that training reads.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config.recipe import Kind
from pipeline.data import contamination, conversations
from pipeline.data.deduplicate import Text
from pipeline.data.external import Digests
from pipeline.data.records import SPLITS, TEXTS
from pipeline.data.tables import batches
from pipeline.errors import UserError
from pipeline.gates._rules import MOST_EXAMPLES, Example, Tally
from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.tokens import IdFile
from pipeline.integrity import kinds_in

_TOGETHER = 64  # documents read at a time


@dataclass(frozen=True)
class Samples:
    """Records by kind (train, then validation, then test), the documents' ids, and the row counts."""

    folder: Path
    sizes: dict[Kind, dict[str, int]]
    """Records of each kind and split."""
    ids: dict[str, IdFile]
    """Document ids of each split."""
    row_counts: dict[str, Any]
    """data/samples/ledger.json: per kind, rows in, kept and removed."""
    raw_counts: dict[str, Any]
    """data/raw/ledger.json: per source and kind, rows in, kept, rejected and left out."""
    tokenizer: Any

    @classmethod
    def open(cls, data: Path) -> "Samples":
        """Opens `<data>/samples` with `<data>/tokens/tokenizer` and `<data>/raw/ledger.json`.

        Raises:
            UserError: a file is missing.
        """
        from pipeline.tokenizer import Tokenizer

        folder = data / "samples"
        meta = files.read_json(_existing(folder / "documents" / "meta.json"))
        dtype = str(meta["dtype"])
        return cls(
            folder=folder,
            sizes={
                kind: {
                    split: int(pq.read_metadata(_existing(folder / kind / f"{split}.parquet")).num_rows)
                    for split in SPLITS
                }
                for kind in kinds_in(folder)
            },
            ids={split: IdFile(_existing(folder / "documents" / f"{split}.bin"), dtype) for split in SPLITS},
            row_counts=files.read_json(_existing(folder / "ledger.json")),
            raw_counts=files.read_json(_existing(data / "raw" / "ledger.json"))["sources"],
            tokenizer=Tokenizer.load(_existing(data / "tokens" / "tokenizer")),
        )

    def records(self, kind: Kind) -> int:
        """Number of records of a kind."""
        return sum(self.sizes[kind].values())

    def splits(self, kind: Kind, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Indices into SPLITS, one per row number, by the file that holds the record, not by its split column."""
        ends = np.cumsum([self.sizes[kind][split] for split in SPLITS])
        return np.searchsorted(ends, rows, side="right")

    def batches(self, kind: Kind, columns: list[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
        """All records of a kind with their split, reduced to the `columns` that the file has."""
        for split in SPLITS:
            path = self._file(kind, split)
            names = set(pq.read_schema(path).names)
            for batch in batches(path, [name for name in columns if name in names]):
                yield split, batch

    @staticmethod
    def columns(kind: Kind) -> list[str]:
        """The columns that hold what a record says."""
        return list(TEXTS[kind])

    def counts(self, kind: Kind, column: str) -> Counter[tuple[str, Any]]:
        """Number of records per (split, value of a column)."""
        counts: Counter[tuple[str, Any]] = Counter()
        for split, batch in self.batches(kind, [column]):
            if column in batch.schema.names:
                counts.update((split, value) for value in batch[column].to_pylist())
        return counts

    def tokens(self, split: str) -> int:
        """Number of tokens of a split's documents, by the index."""
        path = self._file("documents", split)
        return sum(int(batch["length"].to_numpy().sum(dtype=np.int64)) for batch in batches(path, ["length"]))

    def admitted(self, kind: Kind) -> dict[str, int]:
        """Source -> records of this kind in data/raw, by its ledger.json."""
        return {source: kinds.get(kind, {}).get("kept", 0) for source, kinds in self.raw_counts.items()}

    def compared(self, kind: Kind, digests: Digests) -> Iterator[Text]:
        """The fields that deduplication compares, and the language, record by record.

        Appends a digest of each record's fields to `digests`: records are equal word for word where it is equal.
        """
        for texts in self._compared(kind):
            digests.append([_digest(fields) for fields, _ in texts])
            yield from texts

    def _compared(self, kind: Kind) -> Iterator[list[Text]]:
        if kind != "documents":
            for _, batch in self.batches(kind, contamination.compared_columns(kind)):
                yield list(contamination.texts_of(kind, [batch]))
            return
        for split, batch in self.batches(kind, ["start", "length", "language"]):
            for first in range(0, len(batch), _TOGETHER):
                part = batch.slice(first, _TOGETHER)
                texts = self._documents(split, part["start"].to_numpy(), part["length"].to_numpy())
                yield [((text,), language) for text, language in zip(texts, part["language"].to_pylist(), strict=True)]

    def whole_texts(self, kind: Kind) -> Iterator[str]:
        """The model's input text of each record: all fields but the label, of a preference the longer answer."""
        texts = [name for name in TEXTS[kind] if name != "label"]
        for _, batch in self.batches(kind, texts):
            names = [name for name in texts if name in batch.schema.names]
            for values in zip(*(batch[name].to_pylist() for name in names), strict=True):
                row = dict(zip(names, values, strict=True))
                if kind == "preferences":
                    row.pop(min(("chosen", "rejected"), key=lambda name: len(row[name])))
                told = conversations.texts(row.pop("history", None))
                yield "\n".join([*told, *(value for value in row.values() if value)])

    def tally(self, kind: Kind, rows: Iterable[int]) -> Tally:
        """A tally of records by their rows; the first of them are its examples."""
        tally = Tally()
        for row in rows:
            if tally.count < MOST_EXAMPLES:
                tally.add(self.example(kind, row))
            else:
                tally.count += 1
        return tally

    def example(self, kind: Kind, row: int) -> Example:
        """An example of a record, by its row among all records of its kind."""
        split, place = self._place(kind, row)
        record = _row(self._file(kind, split), place)
        if kind == "documents":
            text = next(iter(self._documents(split, np.array([record["start"]]), np.array([record["length"]]))))
        else:
            text = str(record[contamination.COMPARED[kind][0]])
        position = f"{split}:{place + 1}"
        origin = f"{position}, {record['origin']}" if "origin" in record else position
        return Example(record["id"], origin, _texts.excerpt(text))

    def _place(self, kind: Kind, row: int) -> tuple[str, int]:
        """Split of a record, and its row among the records of the split."""
        for split in SPLITS:
            if row < self.sizes[kind][split]:
                return split, row
            row -= self.sizes[kind][split]
        raise IndexError(row)

    def _file(self, kind: Kind, split: str) -> Path:
        return self.folder / kind / f"{split}.parquet"

    def _documents(self, split: str, starts: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> Iterator[str]:
        """Decoded texts of documents; neighbours in the ids file, the usual case, are read at once."""
        first, last = int(starts.min()), int((starts + lengths).max())
        neighbours = first >= 0 and last - first <= 2 * int(lengths.sum(dtype=np.int64))
        block = self.ids[split].read(first, last) if neighbours else None
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            end = start + max(length - 1, 0)
            ids = self.ids[split].read(start, end) if block is None else block[start - first : end - first]
            yield str(self.tokenizer.decode(ids.tolist()))


def _digest(fields: Iterable[str]) -> bytes:
    """BLAKE2b of the fields in NFC, 16 bytes; each field with its length, so that no two lists give one text."""
    composed = [unicodedata.normalize("NFC", field) for field in fields]
    text = "".join(f"{len(field)}:{field}" for field in composed)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _row(path: Path, row: int) -> dict[str, Any]:
    """One record of a parquet file, by its row. Raises IndexError beyond its end."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                return dict(file.read_row_group(group).slice(row, 1).to_pylist()[0])
            row -= rows
    raise IndexError(row)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file; run `dvc repro sample`")
    return path
