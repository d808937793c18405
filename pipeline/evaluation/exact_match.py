"""Exact match: the share of held-out instructions whose greedy answer equals the expected one.

Letter case is folded by the language of the record (Turkish dotless and dotted i), outer punctuation is ignored.
"""

from typing import Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data import language
from pipeline.evaluation import Measured, Subject, answers_to_show, by_record, greedy_answers, records
from pipeline.inference.shots import prompted
from pipeline.outcomes import Outcomes


class Settings(Section):
    """Split, source, limits and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the instructions to measure on."""
    source: str | None = Field(default=None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Prompts in a batch."""
    max_tokens: Positive = Field(examples=[4])
    """Longest answer in tokens."""
    max_records: Positive | None = Field(examples=[None])
    """Measure on the first so many records; null: all."""
    shots: Literal[0, 1, 4, 8] = Field(0, examples=[0, 1])
    """Training records before each question, as earlier turns of the conversation."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """exact_match (overall and by language), empty_share, instructions; details: right and wrong answers, score by
    record.
    """
    rows = records(subject, "instructions", settings.split, settings.source)[: settings.max_records]
    task = subject.answering("exact_match")
    training = records(subject, "instructions", "train") if settings.shots else []
    room = subject.model.room() - settings.max_tokens if settings.shots else 0
    asked = prompted(task, room, rows, training, settings.shots)
    answers = greedy_answers(subject, asked.task, asked.requests, settings.batch_size, settings.max_tokens)
    right = [
        language.exact_match(answer, row["output"], row["language"]) for answer, row in zip(answers, rows, strict=True)
    ]
    metrics = {
        "exact_match": sum(right) / len(rows),
        "empty_share": sum(not answer.strip() for answer in answers) / len(rows),
        "instructions": float(len(rows)),
    }
    for code in sorted({row["language"] for row in rows}):
        chosen = [ok for ok, row in zip(right, rows, strict=True) if row["language"] == code]
        metrics[f"exact_match_{code}"] = sum(chosen) / len(chosen)
    shots = {"shots": settings.shots, "cut_prompts": asked.cut} if settings.shots else {}
    details = shots | {"answers": answers_to_show(rows, answers, right, right), "by_record": by_record(right)}
    return Measured(metrics, details, (Outcomes("exact_match", rows, right),))
