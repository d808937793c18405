"""Texts of a file on the command line and ids: txt (one a line), csv, jsonl or parquet with a column of texts."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

SUFFIXES = (".txt", ".csv", ".jsonl", ".parquet")


def read_texts(path: Path, column: str, identity: str) -> tuple[list[str], list[str]]:
    """Texts and ids of a file, in its order.

    Args:
        path: UTF-8, of a suffix in SUFFIXES; columns of csv apart by commas, semicolons or tabs, whichever its first
            line has most of.
        column: the column of the texts; of txt the line is the text.
        identity: the column of the ids; a file without it has the row numbers, from 1.

    Raises:
        UserError: no such file, another suffix, no such column, or a text that is none; names the row.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected one of {', '.join(SUFFIXES)}")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: expected a file that ends in one of {', '.join(SUFFIXES)}")
    texts, ids = [], []
    try:
        for number, row in enumerate(_rows(path), start=1):
            text = row.get(column if path.suffix != ".txt" else "text")
            if not isinstance(text, str):
                found = f"no column {column!r}; found: {', '.join(map(str, row))}" if text is None else f"{text!r:.40}"
                raise UserError(f"{path}: row {number}: {found}; expected a text: name its column with --column")
            texts.append(text)
            ids.append(str(row.get(identity) or number))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is no UTF-8; convert the file") from None
    if not texts:
        raise UserError(f"{path}: holds no text")
    return texts, ids


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            batches = pq.ParquetFile(path).iter_batches()
            yield from (row for batch in batches for row in batch.to_pylist())
        except pa.ArrowInvalid as error:
            raise UserError(f"{path}: not readable as parquet: {error}") from None
        return
    with path.open(encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None) as stream:
        if path.suffix == ".csv":
            heads = stream.readline()
            stream.seek(0)
            yield from csv.DictReader(stream, delimiter=max(",;\t", key=heads.count))
        elif path.suffix == ".txt":
            yield from ({"text": line} for line in stream.read().splitlines() if line.strip())
        else:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _object(path, number, line)


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: line {number}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: line {number}: {type(value).__name__}; expected an object")
    return value
