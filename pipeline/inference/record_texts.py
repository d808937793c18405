"""Sampled records of one split as the ids that a model was taught: the prompt, and the text after it.

Documents are taught from the end-of-text token on, answers of instructions after their prompt in the task's template.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from pipeline import integrity
from pipeline.data.shards import Shard, shuffled
from pipeline.errors import UserError
from pipeline.inference.token_nats import Text
from pipeline.seeds import seed_for
from pipeline.tasks import Answering, Request
from pipeline.tokenizer import Tokenizer

TextKind = Literal["documents", "instructions"]


class RecordText(NamedTuple):
    """One record with its ids."""

    record: dict[str, Any]
    """Its columns: id, source, language, added ones, and of instructions the texts."""
    ids: Text
    """The prompt and what was taught after it, the end-of-text id excluded."""
    text: str
    """The taught text: a document, or an answer with its question before it."""


class Choice(NamedTuple):
    """The records to take from a split."""

    kind: TextKind
    """Record kind."""
    source: str | None
    """Only those of this source; None: all."""
    limit: int | None
    """At most so many, drawn without replacement; None: all."""
    seed: int
    """Seed of the draw."""


def record_texts(
    samples: Path, split: str, choice: Choice, tokenizer: Tokenizer, task: Answering | None
) -> list[RecordText]:
    """The chosen records of a split, in the order of the file.

    Args:
        samples: the folder data/samples.
        split: train, validation or test.
        choice: which of its records.
        tokenizer: the model's.
        task: the model's task, for instructions.

    Raises:
        UserError: no such record, or a damaged file.
    """
    if choice.kind == "documents":
        shard = Shard.open(samples / choice.kind, split)
        table = shard.index().drop_columns(["start", "length", "bytes", "bits"]).to_pylist()
        texts = []
        for row in _rows(table, choice, split):
            ids = [int(i) for i in shard.document(row)[:-1]]
            texts.append(RecordText(table[row], Text([shard.end_of_text], ids), tokenizer.decode(ids)))
        return texts
    assert task is not None, "instructions are read by a task"
    path = samples / choice.kind / f"{split}.parquet"
    integrity.require_intact(path)
    table = pq.ParquetFile(path).read().to_pylist()
    return [_answer(table[row], tokenizer, task) for row in _rows(table, choice, split)]


def _answer(record: dict[str, Any], tokenizer: Tokenizer, task: Answering) -> RecordText:
    prompt = task.prompt(Request.of_record(record))
    answer = tokenizer.encode(task.opens + record["output"])
    asked = " ".join(filter(None, (record["instruction"], record["input"])))
    return RecordText(record, Text(prompt, answer), f"{asked}\n{record['output']}")


def _rows(table: list[dict[str, Any]], choice: Choice, split: str) -> list[int]:
    """The numbers of the chosen rows, ascending."""
    rows = [row for row, record in enumerate(table) if choice.source in (None, record["source"])]
    if not rows:
        known = ", ".join(sorted({record["source"] for record in table})) or "none"
        raise UserError(
            f"source is {choice.source!r}, no {choice.kind} of split {split} are from it; sources there: {known}: name "
            "one of them, or null for all"
        )
    if choice.limit is None or choice.limit >= len(rows):
        return rows
    drawn = shuffled(len(rows), np.arange(choice.limit), seed_for(choice.seed, "records", choice.kind, split))
    return sorted(rows[int(place)] for place in drawn)
