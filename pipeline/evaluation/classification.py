"""Accuracy, F1 and the confusion matrix of a classifier on held-out labelled texts."""

import math
from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.evaluation import Subject, label_probabilities, records


class Settings(Section):
    """Split and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """accuracy (overall and by language), macro_f1, class_loss_nats, examples; details: confusion matrix, F1 by label,
    up to 50 wrong answers.

    Raises:
        UserError: a model without labels, or a label that it was not trained on.
    """
    task = subject.labelling("classification")
    labels = task.labels
    rows = records(subject, "labelled", settings.split)
    unknown = sorted({row["label"] for row in rows} - set(labels))
    if unknown:
        raise UserError(
            f"data/samples/labelled/{settings.split}.parquet: labels {unknown} were never trained on; "
            f"{subject.name} knows {labels}"
        )
    probabilities_NC = label_probabilities(subject, task, [row["text"] for row in rows], settings.batch_size)
    guesses = [labels[int(p.argmax())] for p in probabilities_NC]
    confusion = {true: dict.fromkeys(labels, 0) for true in labels}
    for row, guess in zip(rows, guesses, strict=True):
        confusion[row["label"]][guess] += 1
    right = [row["label"] == guess for row, guess in zip(rows, guesses, strict=True)]
    nats = [
        -math.log(max(float(p[labels.index(row["label"])]), 1e-30))
        for row, p in zip(rows, probabilities_NC, strict=True)
    ]
    scores = {label: f1(confusion, label) for label in labels}
    metrics = {
        "accuracy": sum(right) / len(rows),
        "macro_f1": sum(scores.values()) / len(labels),
        "class_loss_nats": sum(nats) / len(rows),
        "examples": float(len(rows)),
    }
    for language in sorted({row["language"] for row in rows}):
        chosen = [ok for ok, row in zip(right, rows, strict=True) if row["language"] == language]
        metrics[f"accuracy_{language}"] = sum(chosen) / len(chosen)
    wrong = [
        {"text": row["text"][:300], "label": row["label"], "answer": guess, "origin": row["origin"]}
        for row, guess, ok in zip(rows, guesses, right, strict=True)
        if not ok
    ]
    return metrics, {"confusion": confusion, "f1": scores, "wrong": wrong[:50]}


def f1(confusion: dict[str, dict[str, int]], label: str) -> float:
    """F1 of one label, the harmonic mean of precision and recall; 0 without a correct answer."""
    hits = confusion[label][label]
    predicted = sum(row[label] for row in confusion.values())
    true = sum(confusion[label].values())
    return 2 * hits / (predicted + true) if predicted + true else 0.0
