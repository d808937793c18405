"""Guesses about a user's file: its format, its kind of records, and the columns of text, label, question and answer.

For a first try only; each guess is reported with the params key that sets it for a real run.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.config.recipe import Kind
from pipeline.errors import UserError

ROWS = 2000
"""Rows that are read."""
MOST_LABELS = 20
# Common names of our columns in other projects, the most common first.
_NAMES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "question", "prompt", "query", "soru", "talimat"),
    "input": ("input", "context", "passage", "girdi", "metin"),
    "output": ("output", "answer", "response", "completion", "cevap", "yanıt"),
    "chosen": ("chosen", "preferred"),
    "rejected": ("rejected", "dispreferred"),
    "label": ("label", "class", "category", "target", "etiket", "sınıf", "v1"),
    "text": ("text", "message", "content", "sentence", "review", "metin", "mesaj", "v2"),
}


@dataclass(frozen=True)
class Guess:
    """A file's entry as a source of params.yaml, and a sentence for each guess."""

    kind: Kind
    format: dict[str, Any]
    columns: dict[str, str]
    sentences: tuple[str, ...]


def guess(path: Path) -> Guess:
    """Guesses from the first rows of a file.

    Raises:
        UserError: no such file, an unknown ending, or columns in which nothing can be recognised.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a txt, csv, tsv, json, jsonl or parquet file")
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending in ("txt", "md", "text"):
        form = {
            "name": "txt",
            "encoding": "utf-8",
            "documents": "paragraph",
            "separator": None,
            "max_characters": 5000,
        }
        return Guess("documents", form, {}, ("plain text: every paragraph is a document (format.documents)",))
    if ending in ("csv", "tsv"):
        return _table(path, ending)
    if ending in ("json", "jsonl", "parquet"):
        return _columns(_objects(path, ending), {"name": ending}, path)
    raise UserError(
        f"{path}: ending .{ending} is not known; one of: txt, csv, tsv, json, jsonl, parquet, each also .gz"
    )


def _open(path: Path) -> Any:
    return (
        gzip.open(path, "rt", encoding="utf-8", newline="")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8", newline="")
    )


def _table(path: Path, ending: str) -> Guess:
    with _open(path) as file:
        first = file.readline()
        file.seek(0)
        if ending == "csv":
            delimiter = max(",;|", key=first.count)
            rows = list(islice(csv.reader(file, delimiter=delimiter), ROWS))
        else:
            rows = [line.rstrip("\r\n").split("\t") for line in islice(file, ROWS)]
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise UserError(f"{path}: {len(rows)} rows; expected a table with more")
    known = {name for names in _NAMES.values() for name in names}
    header = any(cell.strip().lower() in known for cell in rows[0])
    names = rows[0] if header else [str(i) for i in range(len(rows[0]))]
    body = [dict(zip(names, row, strict=False)) for row in rows[header:] if len(row) == len(names)]
    form: dict[str, Any] = {"name": ending, "encoding": "utf-8", "header": header}
    form["quoting"] = "standard" if ending == "csv" else "none"
    if ending == "csv":
        form["delimiter"] = delimiter
    return _columns(iter(body), form, path)


def _objects(path: Path, ending: str) -> Iterator[dict[str, Any]]:
    if ending == "parquet":
        import pyarrow.parquet as pq

        batch = next(pq.ParquetFile(path).iter_batches(batch_size=ROWS), None)
        return iter(batch.to_pylist() if batch is not None else [])
    with _open(path) as file:
        try:
            rows = [json.loads(line) for line in islice(file, ROWS)] if ending == "jsonl" else json.load(file)[:ROWS]
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise UserError(
                f"{path}: not {ending} as expected: {error}; expected one object a line, or an array"
            ) from None
    return (row for row in rows if isinstance(row, dict))


def _columns(rows: Iterator[dict[str, Any]], form: dict[str, Any], path: Path) -> Guess:
    body = list(rows)
    names = list(body[0]) if body else []
    by_role = {
        role: next((name for want in wanted for name in names if name.strip().lower() == want), None)
        for role, wanted in _NAMES.items()
    }
    kind, roles = _kind(by_role, body, names)
    if kind is None:
        raise UserError(
            f"{path}: columns found: {', '.join(names) or 'none'}; no column looks like text. Name them under "
            "download.sources.<name>.columns in params.yaml (tohum profile files)"
        )
    columns = {role: name for role, name in roles.items() if name is not None}
    sentences = [f"{len(body)} rows read: kind {kind} (kind)"]
    sentences += [f"{role} is column {name!r} (columns.{role})" for role, name in columns.items()]
    return Guess(kind, form, columns, tuple(sentences))


def _kind(
    by_role: dict[str, str | None], body: list[dict[str, Any]], names: list[str]
) -> tuple[Kind | None, dict[str, str | None]]:
    """The kind whose columns are there by name; else by content (few distinct values: label; the longest: text)."""

    def take(*roles: str) -> dict[str, str | None]:
        return {role: by_role[role] for role in roles}

    if by_role["chosen"] and by_role["rejected"] and by_role["instruction"]:
        return "preferences", take("instruction", "input", "chosen", "rejected")
    if by_role["instruction"] and by_role["output"]:
        return "instructions", take("instruction", "input", "output")
    texts = [name for name in names if all(isinstance(row.get(name), str) for row in body)]
    if not texts:
        return None, {}
    length = {name: sum(len(row[name]) for row in body) for name in texts}
    text = by_role["text"] if by_role["text"] in texts else max(texts, key=lambda name: length[name])
    few = [n for n in texts if n != text and 2 <= len({row[n] for row in body}) <= MOST_LABELS]
    label = by_role["label"] if by_role["label"] in few else next(iter(few), None)
    return ("labelled", {"text": text, "label": label}) if label else ("documents", {"text": text})
