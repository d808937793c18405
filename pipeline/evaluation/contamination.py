"""Contamination: test records whose text also stands in training, and the score with and without them.

A record is contaminated if at least `share` of its n-grams of words (13 as in Brown et al. 2020, appendix C; the share
as in Chowdhery et al. 2022, section 8) occur in one of the training texts. A text of fewer words is compared by runs of
characters, one shorter than such a run as a whole. Texts are compared in normal form (case folded by language, NFC,
white space collapsed). A score that falls where these records are left out was partly copied from training.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section, Share
from pipeline.data import language
from pipeline.data.contamination import COMPARED
from pipeline.data.shards import Shard
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, by_record, greedy_answers, label_probabilities, records
from pipeline.inference.token_nats import Text, token_nats
from pipeline.outcomes import Outcomes
from pipeline.significance import wilson

Gram = tuple[str, ...]
_SCORES = {"documents": "bits_per_byte", "labelled": "accuracy", "instructions": "exact_match"}


class Settings(Section):
    """Record kind, n-grams and score."""

    kind: Literal["documents", "labelled", "instructions"] = Field(examples=["documents", "labelled", "instructions"])
    """Record kind; the score is bits per byte, accuracy or exact match. Questions are compared, not their answers."""
    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split that is compared with training."""
    words: int = Field(ge=2, examples=[13])
    """Words of an n-gram."""
    characters: Positive = Field(examples=[30])
    """Characters of a run, for texts of fewer words than an n-gram."""
    share: Share = Field(examples=[0.7])
    """Share of a record's n-grams in training from which it counts as contaminated; 0: any."""
    max_records: Positive | None = Field(examples=[None, 2])
    """Measure on the first so many records; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch."""
    max_tokens: Positive = Field(examples=[4])
    """Longest answer in tokens, for instructions."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """contamination_share of the records with _low and _high (95 %), contamination_overlap (mean share of n-grams in
    training), contamination_records; the score of all records, contamination_<score>, and of those that are not
    contaminated, contamination_clean_<score>, where there are some of either sort; details: the contaminated records by
    id with their overlap, overlap by record.

    Raises:
        UserError: the split has no record.
    """
    rows, texts = texts_of(settings.kind, subject, settings.split)
    rows, texts = rows[: settings.max_records], texts[: settings.max_records]
    if not rows:
        raise UserError(
            f"data/samples/{settings.kind}: split {settings.split} has no record; raise split.{settings.split}"
        )
    train = texts_of(settings.kind, subject, "train")[1]
    overlaps = overlap(settings, texts, train)
    hit = [share > 0 and share >= settings.share for share in overlaps]
    share = sum(hit) / len(hit)
    low, high = wilson(share, len(hit))
    metrics = {
        "contamination_share": share,
        "contamination_share_low": low,
        "contamination_share_high": high,
        "contamination_overlap": sum(overlaps) / len(overlaps),
        "contamination_records": float(len(rows)),
    }
    if 0 < sum(hit) < len(hit):
        each = scores(settings, subject, rows)
        metrics[f"contamination_{_SCORES[settings.kind]}"] = _mean(each)
        metrics[f"contamination_clean_{_SCORES[settings.kind]}"] = _mean(
            [one for one, found in zip(each, hit, strict=True) if not found]
        )
    listed = [
        {"id": row["id"], "overlap": round(value, 4)}
        for row, value, found in zip(rows, overlaps, hit, strict=True)
        if found
    ]
    details = {"contaminated": listed[:50], "by_record": by_record(overlaps)}
    return Measured(metrics, details, (Outcomes("contamination_share", rows, [float(found) for found in hit]),))


Weighted = tuple[float, float]
"""A record's score and its weight in the mean (bytes of a document, else 1)."""


def _mean(each: Sequence[Weighted]) -> float:
    return sum(value for value, _ in each) / sum(weight for _, weight in each)


def texts_of(kind: str, subject: Subject, split: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Records of a split, and of each the text that is compared, in normal form."""
    if kind == "documents":
        shard = Shard.open(subject.samples / kind, split)
        rows = [row | {"row": number} for number, row in enumerate(shard.index().to_pylist())]
        plain = [subject.tokenizer.decode(shard.document(row["row"])[:-1].tolist()) for row in rows]
        return rows, [_normal(text, row) for text, row in zip(plain, rows, strict=True)]
    rows = [row | {"row": number} for number, row in enumerate(records(subject, kind, split))]
    fields = COMPARED[kind]  # type: ignore[index]  # a literal of the settings
    return rows, [_normal("\n".join(filter(None, (row[name] for name in fields))), row) for row in rows]


def _normal(text: str, record: dict[str, Any]) -> str:
    return language.normal(text, record.get("language") or "und")


def overlap(settings: Settings, texts: Sequence[str], train: Iterable[str]) -> list[float]:
    """For each text the share of its n-grams that occur in one of the training texts."""
    own = [list(grams(settings, text)) for text in texts]
    wanted = {gram: False for text in own for gram in text}
    runs = {gram[0] for gram in wanted if len(gram) == 1 and len(gram[0]) == settings.characters}
    for text in train:
        words = language.words(text)
        for gram in zip(*(words[i:] for i in range(settings.words)), strict=False):
            if gram in wanted:
                wanted[gram] = True
        for run in (*runs.intersection(_runs(text, settings.characters)), text) if runs else (text,):
            if (run,) in wanted:
                wanted[run,] = True
    return [sum(wanted[gram] for gram in text) / len(text) if text else 0.0 for text in own]


def grams(settings: Settings, text: str) -> Iterator[Gram]:
    """The n-grams of words of a text in normal form; of one with fewer words its runs of characters, or itself."""
    words = language.words(text)
    if len(words) >= settings.words:
        yield from zip(*(words[i:] for i in range(settings.words)), strict=False)
    elif len(text) >= settings.characters:
        yield from ((run,) for run in _runs(text, settings.characters))
    elif text:
        yield (text,)


def _runs(text: str, length: int) -> Iterator[str]:
    return (text[i : i + length] for i in range(len(text) - length + 1))


def scores(settings: Settings, subject: Subject, rows: Sequence[dict[str, Any]]) -> list[Weighted]:
    """The score of each record."""
    if settings.kind == "labelled":
        task = subject.labelling("contamination")
        probabilities_NC = label_probabilities(subject, task, [row["text"] for row in rows], settings.batch_size)
        guesses = [task.labels[index] for index in task.indices(probabilities_NC)]
        return [(float(guess == row["label"]), 1.0) for guess, row in zip(guesses, rows, strict=True)]
    if settings.kind == "instructions":
        answering = subject.answering("contamination")
        said = greedy_answers(subject, answering, list(rows), settings.batch_size, settings.max_tokens)
        right = [
            language.exact_match(text, row["output"], row["language"]) for text, row in zip(said, rows, strict=True)
        ]
        return [(float(value), 1.0) for value in right]
    shard = Shard.open(subject.samples / "documents", settings.split)
    texts = [Text([shard.end_of_text], shard.document(row["row"]).tolist()) for row in rows]
    nats = token_nats(subject.model, texts, settings.batch_size, subject.compute)
    room = subject.model.room()
    sizes = [len(subject.tokenizer.decode(list(text.scored[:room])).encode("utf-8", "surrogatepass")) for text in texts]
    return [(float(losses.sum()) / math.log(2), float(size)) for losses, size in zip(nats, sizes, strict=True)]
