"""Forgetting: loss on held-out documents after a fine-tune, less that of the base before it, on the same documents.

Each document is scored from its start, after an end-of-text token; a long one in windows that overlap by half, each
token once (Press et al. 2021, section 3.2), as in measure `perplexity`. Positive: the fine-tune predicts the
pretraining text worse than its base did.
"""

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data.personal import mask
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, open_subject
from pipeline.inference.likelihood import Ids, ids_nats
from pipeline.model.device import autocast
from pipeline.outcomes import Outcomes


class Settings(Section):
    """Split, parent, limit and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the documents to measure on."""
    parent: Literal["base"] | None = Field(examples=[None])
    """base: the loss before the fine-tune is that of models/base; null: the loss after it alone."""
    max_documents: Positive | None = Field(examples=[None, 2])
    """Measure on the first so many documents; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Windows in a batch."""


class Losses(NamedTuple):
    """Loss of each document; arrays [documents]."""

    nats: np.ndarray
    tokens: np.ndarray


def measure(settings: Settings, subject: Subject) -> Measured:
    """loss_after_nats (a token); with a parent loss_before_nats and forgotten_nats (after less before), by source too;
    details: the documents whose loss rose most.

    Raises:
        UserError: the split has no documents, or a model without a language head.
    """
    shard = Shard.open(subject.samples / "documents", settings.split)
    index = shard.index().to_pylist()[: settings.max_documents]
    if not index:
        raise UserError(
            f"data/samples/documents/{settings.split}.parquet has no documents; raise split.{settings.split}"
        )
    after = _losses(subject, shard, len(index), settings.batch_size)
    metrics = {"loss_after_nats": _mean(after, slice(None)), "forgetting_documents": float(len(index))}
    if settings.parent is None:
        return Measured(metrics, {})
    parent = open_subject(settings.parent, subject.compute)
    if parent.tokenizer.vocab_size != subject.tokenizer.vocab_size:
        raise UserError(
            f"forgetting.parent: {settings.parent} has a vocabulary of {parent.tokenizer.vocab_size} tokens, "
            f"{subject.name} of {subject.tokenizer.vocab_size}; losses a token cannot be compared: set parent to null"
        )
    before = _losses(parent, shard, len(index), settings.batch_size)
    metrics["loss_before_nats"] = _mean(before, slice(None))
    metrics["forgotten_nats"] = metrics["loss_after_nats"] - metrics["loss_before_nats"]
    sources = np.array([row["source"] for row in index], dtype=object)
    for name in sorted(set(sources.tolist())) if len(set(sources.tolist())) > 1 else ():
        at = sources == name
        metrics[f"forgotten_nats_{name}"] = _mean(after, at) - _mean(before, at)
    # scaled so that the mean over documents is the difference a token
    rises = (after.nats - before.nats) / after.tokens.mean()
    worst = np.argsort(-rises, kind="stable")[:5]
    shown = [
        {
            "rise_nats": round(float(after.nats[row] - before.nats[row]), 3),
            "text": mask(subject.tokenizer.decode(shard.document(int(row))[:-1].tolist()))[:300],
        }
        for row in worst
    ]
    return Measured(metrics, {"rose_most": shown}, (Outcomes("forgotten_nats", index, rises.tolist()),))


def _mean(losses: Losses, at: slice | np.ndarray) -> float:
    """Loss a token."""
    return float(losses.nats[at].sum() / losses.tokens[at].sum())


def _losses(subject: Subject, shard: Shard, n: int, batch_size: int) -> Losses:
    """The losses of the first `n` documents."""
    room, rows, of = subject.model.room(), [], []
    for document in range(n):
        ids = [shard.end_of_text, *shard.document(document).tolist()]
        for window in _windows(ids, room):
            rows.append(window)
            of.append(document)
    scored = ids_nats(subject.model, rows, batch_size, precision=autocast(subject.compute), names=[
        f"document {document + 1} of the split {shard.split}" for document in of
    ])  # fmt: skip
    nats, tokens = np.zeros(n), np.zeros(n)
    np.add.at(nats, of, [one.nats for one in scored])
    np.add.at(tokens, of, [one.tokens for one in scored])
    return Losses(nats, tokens)


def _windows(ids: list[int], room: int) -> list[Ids]:
    """Contexts and continuations that score every id but the first once."""
    windows, done = [Ids(ids[:1], ids[1 : room + 1])], room + 1
    while done < len(ids):
        end = min(done + max(1, room // 2), len(ids))
        windows.append(Ids(ids[max(0, end - room - 1) : done], ids[done:end]))
        done = end
    return windows
