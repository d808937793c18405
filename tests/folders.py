"""data/raw and data/tokens as their stages would leave them, small and without running those stages."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.recipe import KINDS
from pipeline.data.records import CONTENT, added_columns, record_id, schema
from pipeline.files import write_json, write_table
from tests.fakes import ByteTokenizer


def write_raw(folder: Path, **kinds: list[dict[str, Any]]) -> Path:
    """The four parquet files. A record needs its content columns; the rest is filled in, and others are kept."""
    for kind in KINDS:
        rows = [_completed(kind, number, row) for number, row in enumerate(kinds.get(kind, []))]
        added = added_columns(kind, dict.fromkeys(name for row in rows for name in row))
        write_table(folder / f"{kind}.parquet", pa.Table.from_pylist(rows, schema=schema(kind, added)))
    return folder


def write_tokens(raw: Path, folder: Path, dtype: str = "uint16") -> Path:
    """ids.bin, index.parquet and meta.json of the documents, one id per byte."""
    documents = pq.read_table(raw / "documents.parquet")
    tokenizer = ByteTokenizer()
    ids = [[*tokenizer.encode(text), tokenizer.end_of_text] for text in documents["text"].to_pylist()]
    lengths = np.array([len(one) for one in ids], dtype=np.int32)
    folder.mkdir(parents=True, exist_ok=True)
    np.array(list(chain.from_iterable(ids)), dtype=dtype).tofile(folder / "ids.bin")
    index = documents.select(["id", "source", "language", "split"])
    index = index.append_column("start", pa.array(np.cumsum(lengths, dtype=np.int64) - lengths))
    index = index.append_column("length", pa.array(lengths)).append_column("bytes", pa.array(lengths - 1))
    for name in ("bits", *added_columns("documents", documents.column_names)):
        index = index.append_column(name, documents[name])
    write_table(folder / "index.parquet", index)
    write_json(
        folder / "meta.json",
        {
            "dtype": dtype,
            "vocab_size": tokenizer.vocab_size,
            "end_of_text": tokenizer.end_of_text,
            "n_documents": len(documents),
            "n_tokens": int(lengths.sum()),
        },
    )
    return folder


def _completed(kind: Any, number: int, row: dict[str, Any]) -> dict[str, Any]:
    content = [row[name] for name in CONTENT[kind]]
    filled = {
        "id": record_id(kind, *content),
        "source": "test",
        "language": "tr",
        "origin": f"test:{number + 1}",
    }
    return filled | row
