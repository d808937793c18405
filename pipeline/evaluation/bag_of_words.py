"""Bag-of-words baseline: TF-IDF of words and word pairs with logistic regression.

The same baseline stands beside every classifier (`baseline` of the measure `classification`); this measure gives it
where no classifier is evaluated.
"""

from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.evaluation import Subject, baseline_labels, of_source, records


class Settings(Section):
    """Split and source."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    source: str | None = Field(None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """bag_of_words_accuracy with the best of three regularisation strengths by validation accuracy; details: it."""
    rows = records(subject, "labelled", settings.split, settings.source)
    baseline = baseline_labels(subject, settings.split)
    answers = of_source(baseline.labels, subject, settings.split, settings.source)
    right = [row["label"] == label for row, label in zip(rows, answers, strict=True)]
    return {"bag_of_words_accuracy": sum(right) / len(rows)}, {"bag_of_words_strength": baseline.strength}
