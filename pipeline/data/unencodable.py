"""Texts that the vocabulary cannot encode: a byte or character without a token, and no token of unknown text.

Documents are rejected at tokenizing (`encode_documents`): rejections.parquet in data/tokens names row and reason, and
their ids are the end-of-text token alone. Records of the other kinds are rejected at sampling (`rejected_rows`), which
leaves both out with the reason `unencodable`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import files
from pipeline.config.recipe import Kind
from pipeline.data import conversations
from pipeline.data.records import TEXTS
from pipeline.data.tables import batches, existing
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.encoders import Ids, UnencodableError
from pipeline.tokenizer.utf8 import Utf8

UNENCODABLE = "unencodable"
"""Reason in the ledger of data/samples."""
REJECTIONS_FILE = "rejections.parquet"
"""File in data/tokens; absent where every document was encoded."""
UNENCODABLE_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


class Rejection(NamedTuple):
    """A text without ids."""

    row: int
    """In the batch."""
    reason: str
    """The byte or character."""
    detail: str
    """With its place in the text."""


def encode_documents(vocabulary: Tokenizer, texts: Utf8) -> tuple[list[Ids], list[Rejection]]:
    """The ids of each text, none for a rejected one; and the rejected texts."""
    try:
        return vocabulary.encode_utf8(texts), []
    except UnencodableError:
        pass
    encoded, rejections = [], []
    for row, text in enumerate(texts.cut()):
        try:
            encoded += vocabulary.encode_batch([text.decode()])
        except UnencodableError as error:
            encoded.append(np.empty(0, np.uint32))
            rejections.append(Rejection(row, error.reason, str(error)))
    return encoded, rejections


def write_rejections(folder: Path, rejected: list[tuple[int, str, Rejection]]) -> dict[str, int]:
    """Writes rejections.parquet if there is any; returns the number of documents by reason.

    Args:
        folder: data/tokens.
        rejected: number of the first row of the document's batch, the document's id, and the rejection.
    """
    if rejected:
        columns = {
            "row": [first + rejection.row for first, _, rejection in rejected],
            "id": [identity for _, identity, _ in rejected],
            "reason": [rejection.reason for *_, rejection in rejected],
            "detail": [rejection.detail for *_, rejection in rejected],
        }
        pq.write_table(pa.table(columns, schema=UNENCODABLE_SCHEMA), folder / REJECTIONS_FILE)
    return dict(sorted(Counter(rejection.reason for *_, rejection in rejected).items()))


def refusing(tokens: Path) -> Tokenizer | None:
    """The vocabulary of data/tokens if there are texts that it cannot encode (`refuses` in meta.json)."""
    meta = existing(tokens / "meta.json", "tokenize")
    return Tokenizer.load(tokens / "tokenizer") if files.read_json(meta).get("refuses") else None


def rejected_documents(tokens: Path) -> npt.NDArray[np.int64]:
    """Rows of data/raw/documents.parquet that were rejected at tokenizing, ascending."""
    path = tokens / REJECTIONS_FILE
    if not path.exists():
        return np.empty(0, np.int64)
    rows: npt.NDArray[np.int64] = pq.ParquetFile(path).read(columns=["row"])["row"].to_numpy().astype(np.int64)
    return rows


def rejected_rows(kind: Kind, path: Path, tokens: Path, vocabulary: Tokenizer | None) -> npt.NDArray[np.int64]:
    """Rows of a kind's records with a text that the vocabulary cannot encode, ascending.

    Args:
        kind: of the records.
        path: of their file in data/raw.
        tokens: data/tokens.
        vocabulary: from `refusing`.
    """
    if vocabulary is None:
        return np.empty(0, np.int64)
    if kind == "documents":
        return rejected_documents(tokens)
    rows = (row for row, texts in enumerate(_texts(kind, path)) if not _encodable(vocabulary, texts))
    return np.fromiter(rows, np.int64)


def _texts(kind: Kind, path: Path) -> Iterator[list[str]]:
    """The texts of each record that a model reads or writes; a label or a verdict is no text of the vocabulary."""
    names = [name for name in TEXTS[kind] if name not in ("label", "verdict")]
    for batch in batches(path, names):
        for record in batch.to_pylist():
            told = conversations.texts(record.pop("history", None))
            told += json.loads(record.pop("answers", "[]"))  # of ratings
            yield [text for text in (*told, *record.values()) if text]


def _encodable(vocabulary: Tokenizer, texts: list[str]) -> bool:
    try:
        vocabulary.encode_batch(texts)
    except UnencodableError:
        return False
    return True
