"""Perplexity, loss and bits per byte on held-out documents, and their ratio to the best possible model's.

Each document is scored from its start, after an end-of-text token; its own end-of-text token is a prediction too. A
document longer than the context is scored in windows that overlap by half, each token once, with at least half a
window of text before it (Press et al. 2021, section 3.2). bits_per_byte = nats / ln 2 / UTF-8 bytes, which does not
depend on the tokenizer. `bits_per_byte_over_known` is the ratio to the bits that a perfect model of the source needs.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pipeline.config.section import Positive, Section
from pipeline.data.personal import mask
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject
from pipeline.model.device import autocast
from pipeline.outcomes import Outcomes


class Settings(Section):
    """Split, source, limit and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the documents to measure on."""
    source: str | None = Field(default=None, examples=[None, "a"])
    """Measure only on the documents of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Windows in a batch; their number does not change the metrics."""
    max_documents: Positive | None = Field(examples=[None, 1])
    """Measure on the first so many documents of each source; null: all."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """loss_nats (per token), perplexity, bits_per_byte, bits_per_byte_known and their ratio, unigram_entropy_nats,
    documents, bytes_per_token, document_bits_per_byte (mean over the documents); with several sources or languages
    loss_nats, bits_per_byte and the known bits of each too (bits_per_byte_over_known_tr); details: the hardest ones.

    Raises:
        UserError: the split has no documents.
    """
    shard = Shard.open(subject.samples / "documents", settings.split)
    sources = np.array(shard.index()["source"].to_pylist(), dtype=object)
    if settings.source is not None and settings.source not in sources:
        named = ", ".join(sorted(set(sources.tolist()))) or "no source"
        raise UserError(f"source is {settings.source!r}; the {settings.split} documents are of: {named}")
    rows = _first_of_each(sources, settings.source, settings.max_documents)
    if not len(rows):
        raise UserError(
            f"data/samples/documents/{settings.split}.parquet has no documents; raise split.{settings.split}"
        )
    nats, tokens, n_bytes = document_nats(subject, shard, rows, settings.batch_size)
    metrics = {
        "loss_nats": float(nats.sum() / tokens.sum()),
        "perplexity": float(math.exp(nats.sum() / tokens.sum())),
        "bits_per_byte": float(nats.sum() / math.log(2) / n_bytes.sum()),
        "unigram_entropy_nats": unigram_entropy(subject, shard, rows),
        "documents": float(len(rows)),
        "bytes_per_token": float(n_bytes.sum() / tokens.sum()),
    }
    known = shard.bits[rows]
    metrics |= _beside_known(nats, n_bytes, known, "")
    documents = shard.index().take(rows).to_pylist()
    of_source = np.array([row["source"] for row in documents], dtype=object)
    of_language = np.array([row.get("language") for row in documents], dtype=object)
    for column in (of_source, of_language):
        for name in sorted(set(column.tolist()) - {None}):
            at = column == name
            if at.all():
                continue  # the whole
            metrics[f"loss_nats_{name}"] = float(nats[at].sum() / tokens[at].sum())
            metrics[f"bits_per_byte_{name}"] = float(nats[at].sum() / math.log(2) / n_bytes[at].sum())
            metrics |= _beside_known(nats[at], n_bytes[at], known[at], f"_{name}")
    each = nats / math.log(2) / n_bytes
    metrics["document_bits_per_byte"] = float(each.mean())
    outcomes = (Outcomes("document_bits_per_byte", documents, each.tolist()),)
    return Measured(metrics, {"hardest_documents": _hardest(subject, shard, rows, each)}, outcomes)


def _beside_known(nats: np.ndarray, n_bytes: np.ndarray, known: np.ndarray, suffix: str) -> dict[str, float]:
    """Bits per byte that a perfect model of the source needs, and the ratio to them; empty where none are known."""
    has = ~np.isnan(known)
    if not has.any():
        return {}
    return {
        f"bits_per_byte_known{suffix}": float(known[has].sum() / n_bytes[has].sum()),
        f"bits_per_byte_over_known{suffix}": float(nats[has].sum() / math.log(2) / known[has].sum()),
    }


def _first_of_each(sources: np.ndarray, source: str | None, limit: int | None) -> np.ndarray:
    """Indices of the first `limit` documents of every source, or of one, in the order of the file."""
    named = sorted(set(sources.tolist())) if source is None else [source]
    chosen = [np.flatnonzero(sources == name)[:limit] for name in named]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


@torch.no_grad()
def document_nats(subject: Subject, shard: Shard, rows: np.ndarray, batch_size: int) -> tuple[Any, Any, Any]:
    """Negative log-likelihood in nats, tokens and bytes of each of the documents `rows`; arrays [len(rows)]."""
    context = subject.model.room()
    pieces: list[tuple[int, np.ndarray, int]] = []  # document, ids of the window, number of last targets to score
    for place, row in enumerate(rows):
        ids = np.concatenate([[shard.end_of_text], shard.document(int(row))]).astype(np.int64)
        pieces += [(place, *piece) for piece in _windows(ids, context)]
    pieces.sort(key=lambda piece: len(piece[1]))  # equal lengths together: less padding
    nats = np.zeros(len(rows))
    for first in range(0, len(pieces), batch_size):
        chosen = pieces[first : first + batch_size]
        for (place, _, _), value in zip(chosen, _window_nats(subject, chosen), strict=True):
            nats[place] += value
    return nats, shard.lengths[rows].astype(np.int64), shard.bytes[rows].astype(np.int64)


def _windows(ids: np.ndarray, context: int) -> list[tuple[np.ndarray, int]]:
    """Windows of at most context + 1 ids and the number of last targets to score, so that each is scored once."""
    if len(ids) <= context + 1:
        return [(ids, len(ids) - 1)]
    windows = [(ids[: context + 1], context)]
    done = context  # targets scored so far
    while done < len(ids) - 1:
        end = min(done + context // 2, len(ids) - 1)
        windows.append((ids[end - context : end + 1], end - done))
        done = end
    return windows


def _window_nats(subject: Subject, chosen: list[tuple[int, np.ndarray, int]]) -> list[float]:
    longest = max(len(ids) for _, ids, _ in chosen)
    inputs = torch.zeros((len(chosen), longest - 1), dtype=torch.long)
    targets = torch.full_like(inputs, -100)
    for i, (_, ids, counted) in enumerate(chosen):
        n = len(ids) - 1
        inputs[i, :n] = torch.from_numpy(ids[:-1])
        targets[i, n - counted : n] = torch.from_numpy(ids[1 + n - counted :])
    device = next(subject.model.parameters()).device
    with autocast(subject.compute):
        logits_BTV = subject.model(inputs.to(device))
    losses_BT = nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets.to(device).flatten(), ignore_index=-100, reduction="none"
    ).view_as(targets)
    return [float(x) for x in losses_BT.double().sum(1)]


def unigram_entropy(subject: Subject, shard: Shard, rows: np.ndarray) -> float:
    """Cross-entropy of a unigram model of the training split on these documents, nats per token, add-one smoothing."""
    train = Shard.open(subject.samples / "documents", "train")
    size = max(shard.vocab_size, int(shard.ids.max()) + 1 if len(shard.ids) else 0)
    counts = np.bincount(train.ids, minlength=size) + 1.0
    ids = np.concatenate([shard.document(int(row)) for row in rows])
    return float(-np.log(counts / counts.sum())[ids].mean())


def _hardest(subject: Subject, shard: Shard, rows: np.ndarray, bits_per_byte: np.ndarray) -> list[dict[str, Any]]:
    worst = np.argsort(-bits_per_byte, kind="stable")[:5]
    return [
        {
            "bits_per_byte": round(float(bits_per_byte[place]), 4),
            "text": mask(subject.tokenizer.decode(shard.document(int(rows[place]))[:-1].tolist()))[:300],
        }
        for place in worst
    ]
