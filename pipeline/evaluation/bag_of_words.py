"""Bag-of-words baseline: TF-IDF of words and word pairs with logistic regression.

The same baseline stands beside every classifier (`baseline` of the measure `classification`); this measure gives it
where no classifier is evaluated.
"""

from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Section
from pipeline.evaluation import Subject, baseline_labels, records


class Settings(Section):
    """Split."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """bag_of_words_accuracy with the best of three regularisation strengths by validation accuracy; details: it."""
    rows = records(subject, "labelled", settings.split)
    baseline = baseline_labels(subject, settings.split)
    right = [row["label"] == label for row, label in zip(rows, baseline.labels, strict=True)]
    return {"bag_of_words_accuracy": sum(right) / len(rows)}, {"bag_of_words_strength": baseline.strength}
