"""Loss by position: -ln p of tokens near the beginning of a document and far into the context.

A model that uses its context predicts later tokens better; a flat or rising curve shows that it does not (Kaplan et al.
2020, section 4.4). The first context_length tokens of each document, after end-of-text.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject
from pipeline.inference.likelihood import Ids, token_nats
from pipeline.model.device import autocast


class Settings(Section):
    """Split, source, limit and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the documents to measure on."""
    source: str | None = Field(examples=[None])
    """Measure only on the documents of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Documents in a batch."""
    max_documents: Positive | None = Field(examples=[None, 1])
    """Measure on the first so many documents; null: all."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """loss_at_1_to_16_nats, loss_at_17_to_32_nats, ... (means over tokens, bounds doubling); details: tokens of each.

    Raises:
        UserError: no documents of that split and source.
    """
    shard = Shard.open(subject.samples / "documents", settings.split)
    sources = shard.index()["source"].to_pylist()
    rows = [i for i, source in enumerate(sources) if settings.source in (None, source)][: settings.max_documents]
    if not rows:
        named = ", ".join(sorted(set(sources))) or "no source"
        raise UserError(f"source is {settings.source!r}; the {settings.split} documents are of: {named}")
    room = subject.model.room()
    texts = [Ids([shard.end_of_text], shard.document(row)[:room].tolist()) for row in rows]
    ids = shard.index()["id"].to_pylist()
    scored = token_nats(
        subject.model, texts, settings.batch_size, precision=autocast(subject.compute),
        names=[f"document {ids[row]}" for row in rows],
    )  # fmt: skip
    sums, counts = np.zeros(room), np.zeros(room)
    for values, _ in scored:
        sums[: len(values)] += values
        counts[: len(values)] += 1
    metrics, tokens = {}, {}
    for first, last in bounds(room):
        if not counts[first:last].any():
            break  # no document is that long
        name = f"loss_at_{first + 1}_to_{last}_nats"
        metrics[name] = float(sums[first:last].sum() / counts[first:last].sum())
        tokens[name] = int(counts[first:last].sum())
    return Measured(metrics, {"tokens": tokens})


def bounds(length: int) -> list[tuple[int, int]]:
    """(first, end) of stretches that double from 16 positions on and cover 0..length-1."""
    ends = [16]
    while ends[-1] < length:
        ends.append(2 * ends[-1])
    return [(first, min(end, length)) for first, end in zip([0, *ends], ends, strict=False)]
