"""data/samples as its gate sees it: all records of a kind, split after split, and how one is shown.

Documents lie there as token ids; their texts are decoded again, so what is compared is what training will
read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config import KINDS, Kind, UserError
from pipeline.data import contamination, conversations
from pipeline.data.deduplicate import Text
from pipeline.data.records import CONTENT, SPLITS
from pipeline.gates import _texts
from pipeline.gates._rules import Example
from pipeline.gates._tokens import ids_of


@dataclass(frozen=True)
class Samples:
    """Records by kind (train, then validation, then test), the documents' ids, and the accounts."""

    tables: dict[Kind, pa.Table]
    ids: dict[str, npt.NDArray[np.unsignedinteger]]
    starts: dict[str, npt.NDArray[np.int64]]
    lengths: dict[str, npt.NDArray[np.int64]]
    ledger: dict[str, Any]
    raw_ledger: dict[str, Any]
    tokenizer: Any

    @classmethod
    def open(cls, data: Path) -> "Samples":
        """Opens `<data>/samples` with `<data>/tokens/tokenizer` and `<data>/raw/ledger.json`.

        Raises:
            UserError: a file is missing.
        """
        from pipeline.tokenizer import Tokenizer

        folder = data / "samples"
        tables = {kind: _table(folder / kind) for kind in KINDS}
        meta = files.read_json(_there(folder / "documents" / "meta.json"))
        by_split = {split: _index(folder / "documents" / f"{split}.parquet") for split in SPLITS}
        return cls(
            tables=tables,
            ids={split: ids_of(_there(folder / "documents" / f"{split}.bin"), str(meta["dtype"])) for split in SPLITS},
            starts={split: index[0] for split, index in by_split.items()},
            lengths={split: index[1] for split, index in by_split.items()},
            ledger=files.read_json(_there(folder / "ledger.json")),
            raw_ledger=files.read_json(_there(data / "raw" / "ledger.json"))["sources"],
            tokenizer=Tokenizer.load(_there(data / "tokens" / "tokenizer")),
        )

    def splits(self, kind: Kind) -> list[str]:
        """The split that each record stands in: that of its file, whatever its column says."""
        return self.column(kind, "in_split")

    def column(self, kind: Kind, name: str) -> list[Any]:
        """A column of all records of a kind; empty where the kind has no such column."""
        table = self.tables[kind]
        return table.column(name).to_pylist() if name in table.column_names else []

    def admitted(self, kind: Kind) -> dict[str, int]:
        """Source -> records of this kind that data/raw holds, by its ledger."""
        return {source: kinds.get(kind, {}).get("kept", 0) for source, kinds in self.raw_ledger.items()}

    def compared(self, kind: Kind) -> Iterator[Text]:
        """The fields that make two records one, and the language, record by record."""
        if kind != "documents":
            yield from contamination.texts_of(kind, self.tables[kind].to_batches())
            return
        for row, language in enumerate(self.column(kind, "language")):
            yield (self._document(row),), language

    def fields(self, kind: Kind, row: int) -> list[str]:
        """The compared fields of one record."""
        if kind == "documents":
            return [self._document(row)]
        record = self.tables[kind].slice(row, 1)
        return [str(record.column(name)[0].as_py()) for name in contamination.COMPARED[kind]]

    def whole(self, kind: Kind) -> Iterator[str]:
        """All that a model reads of a record, as one text."""
        texts = [name for name in CONTENT[kind] if name != "label"]
        for values in zip(*(self.column(kind, name) for name in texts), strict=True):
            if kind == "preferences":
                values = (*values[:2], max(values[2:], key=len))
            yield "\n".join(conversations.said(value) for value in values if value)

    def example(self, kind: Kind, row: int) -> Example:
        """A record by its row among all of its kind."""
        record = self.tables[kind].slice(row, 1).to_pylist()[0]
        text = self._document(row) if kind == "documents" else str(record[contamination.COMPARED[kind][0]])
        place = f"{record['in_split']}:{record['in_row'] + 1}"
        origin = f"{place}, {record['origin']}" if "origin" in record else place
        return Example(record["id"], origin, _texts.excerpt(text))

    def _document(self, row: int) -> str:
        record = self.tables["documents"].slice(row, 1)
        split, place = record.column("in_split")[0].as_py(), record.column("in_row")[0].as_py()
        start, length = int(self.starts[split][place]), int(self.lengths[split][place])
        return str(self.tokenizer.decode(self.ids[split][start : start + max(length - 1, 0)].tolist()))


def _there(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such file; run `dvc repro sample`")
    return path


def _table(folder: Path) -> pa.Table:
    tables = []
    for split in SPLITS:
        table = pq.read_table(_there(folder / f"{split}.parquet"))
        rows = pa.array(np.arange(len(table)))
        tables.append(
            table.append_column("in_split", pa.repeat(pa.scalar(split), len(table))).append_column("in_row", rows)
        )
    return pa.concat_tables(tables).combine_chunks()


def _index(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    index = pq.read_table(_there(path), columns=["start", "length"])
    return index.column("start").to_numpy().astype(np.int64), index.column("length").to_numpy().astype(np.int64)
