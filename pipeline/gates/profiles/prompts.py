"""Profile table of prompts that people sent: records of a journal whose prompt is that of a test record of any kind.

Deduplication compares records of one kind; a rated prompt may be a test question of another. Prompts are compared by
64 bits of the BLAKE2b hash of their normal form.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import pyarrow.parquet as pq

from pipeline.config.recipe import Kind
from pipeline.data import language
from pipeline.data.records import PROMPT
from pipeline.gates._rules import Frame, Tally
from pipeline.gates.profiles.splits import Samples

_ASKED: dict[Kind, tuple[str, ...]] = {
    "labelled": ("text",),
    "instructions": ("instruction", "input"),
    "preferences": ("instruction", "input"),
    "ratings": ("prompt",),
}
"""Columns that are asked; of documents nothing is."""


def profile(samples: Samples) -> Frame:
    """Frame `sent_prompts`: a row per kind with records of a journal outside test, and those with a test prompt."""
    frame = Frame(("kind",), ("prompts", "test_prompts"))
    held = {form for kind in _kinds(samples) for _, split, form, _ in _forms(samples, kind) if split == "test"}
    for kind in _kinds(samples):
        if PROMPT not in pq.read_schema(samples.folder / kind / "train.parquet").names:
            continue
        n, rows = 0, []
        for row, split, form, sent in _forms(samples, kind):
            if sent and split != "test":
                n += 1
                if form in held:
                    rows.append(row)
        frame.add({"kind": kind, "prompts": n, "test_prompts": samples.tally(kind, rows) if rows else Tally()})
    return frame


def _kinds(samples: Samples) -> list[Kind]:
    return [kind for kind in samples.sizes if kind in _ASKED]


def _forms(samples: Samples, kind: Kind) -> Iterator[tuple[int, str, bytes, bool]]:
    """Row, split, hash of the prompt's normal form, and whether it is of a journal, of each record."""
    row = 0
    for split, batch in samples.batches(kind, [*_ASKED[kind], "language", PROMPT]):
        for record in batch.to_pylist():
            yield row, split, _digest(record, kind), record.get(PROMPT) is not None
            row += 1


def _digest(record: dict[str, Any], kind: Kind) -> bytes:
    asked = "\n".join(record[name] for name in _ASKED[kind] if record[name])
    return blake2b(language.normal(asked, record["language"]).encode("utf-8", "surrogatepass"), digest_size=8).digest()
