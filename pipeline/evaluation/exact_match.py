"""Share of held-out instructions whose greedy answer is the expected one, compared as the language compares."""

from typing import Any, Literal

from pipeline.config.section import Positive, Section
from pipeline.data import language
from pipeline.evaluation import Subject, answer, looked_at, records


class Settings(Section):
    split: Literal["validation", "test"]
    batch_size: Positive
    max_tokens: Positive
    """Longest answer."""
    max_records: Positive | None
    """The first so many records; null: all."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """exact_match, overall and by language; details: right and wrong answers to look at."""
    rows = records(subject, "instructions", settings.split)[: settings.max_records]
    answers = answer(subject, rows, settings.batch_size, settings.max_tokens)
    right = [
        language.exact_match(given, row["output"], row["language"]) for given, row in zip(answers, rows, strict=True)
    ]
    metrics = {
        "exact_match": sum(right) / len(rows),
        "empty_share": sum(not given.strip() for given in answers) / len(rows),
        "instructions": float(len(rows)),
    }
    for code in sorted({row["language"] for row in rows}):
        chosen = [ok for ok, row in zip(right, rows, strict=True) if row["language"] == code]
        metrics[f"exact_match_{code}"] = sum(chosen) / len(chosen)
    return metrics, {"answers": looked_at(rows, answers, right, right)}
