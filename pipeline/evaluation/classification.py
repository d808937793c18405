"""Accuracy, F1 and the confusion matrix of a classifier on held-out labelled texts, beside a baseline on the same.

The baseline is TF-IDF with logistic regression, trained on all training records; a fine-tuned model is worth its cost
only where it beats that. The records on which only one of the two is right decide it (McNemar's test).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data.personal import mask
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, baseline_labels, by_record, label_probabilities, of_source, records
from pipeline.outcomes import Outcomes
from pipeline.tasks import Labelling


class Settings(Section):
    """Split, source, batch size and baseline."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    source: str | None = Field(default=None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""
    baseline: Literal["bag_of_words"] | None = Field(examples=["bag_of_words", None])
    """Classifier to compare with on the same records: TF-IDF with logistic regression; null: none."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """accuracy (overall and by language), macro_f1, class_loss_nats, examples (held-out records); with thresholds
    chosen on validation argmax_accuracy and argmax_macro_f1 (without them), and with costs mean_cost and
    argmax_mean_cost; with a baseline baseline_accuracy, majority_accuracy (the most frequent training label for all),
    only_model_right and only_baseline_right (records); details: confusion matrix, F1 by label, up to 50 wrong answers,
    score by record.

    Raises:
        UserError: a model without labels, or a label that it was not trained on.
    """
    task = subject.labelling("classification")
    labels = task.labels
    rows = records(subject, "labelled", settings.split, settings.source)
    unknown = sorted({row["label"] for row in rows} - set(labels))
    if unknown:
        raise UserError(
            f"data/samples/labelled/{settings.split}.parquet: labels {unknown} were never trained on; "
            f"{subject.name} knows {labels}"
        )
    probabilities_NC = label_probabilities(subject, task, [row["text"] for row in rows], settings.batch_size)
    guesses = [labels[index] for index in task.indices(probabilities_NC)]
    confusion = confusion_of(rows, guesses, labels)
    right = [row["label"] == guess for row, guess in zip(rows, guesses, strict=True)]
    nats = [
        -math.log(max(float(p[labels.index(row["label"])]), 1e-30))
        for row, p in zip(rows, probabilities_NC, strict=True)
    ]
    scores = {label: f1(confusion, label) for label in labels}
    plain = [labels[int(index)] for index in probabilities_NC.argmax(1)]
    metrics = {
        "accuracy": sum(right) / len(rows),
        "macro_f1": sum(scores.values()) / len(labels),
        "class_loss_nats": sum(nats) / len(rows),
        "examples": float(len(rows)),
    } | _beside_argmax(task, rows, guesses, plain)
    for language in sorted({row["language"] for row in rows}):
        chosen = [ok for ok, row in zip(right, rows, strict=True) if row["language"] == language]
        metrics[f"accuracy_{language}"] = sum(chosen) / len(chosen)
    wrong = [
        {"text": mask(row["text"])[:300], "label": row["label"], "answer": guess, "origin": row["origin"]}
        for row, guess, ok in zip(rows, guesses, right, strict=True)
        if not ok
    ]
    details = {"confusion": confusion, "f1": scores, "wrong": wrong[:50], "by_record": by_record(right)}
    outcomes = Outcomes("accuracy", rows, right), Outcomes("class_loss_nats", rows, nats)
    if settings.baseline is None:
        return Measured(metrics, details, outcomes)
    more, baseline_by_record = _beside_baseline(subject, settings, rows, right)
    return Measured(metrics | more, details | {"baseline_by_record": baseline_by_record}, outcomes)


def _beside_baseline(
    subject: Subject, settings: Settings, rows: Sequence[dict[str, Any]], right: Sequence[bool]
) -> tuple[dict[str, float], str]:
    """The metrics of the baseline beside those of the model, and whether it is right on each record.

    Args:
        subject: the model, with its samples.
        settings: split and source of the records.
        rows: the records.
        right: whether the model is right on each of them.
    """
    baseline = baseline_labels(subject, settings.split)
    labels = of_source(baseline.labels, subject, settings.split, settings.source)
    baseline_right = [row["label"] == label for row, label in zip(rows, labels, strict=True)]
    pairs = Counter(zip(right, baseline_right, strict=True))
    metrics = {
        "baseline_accuracy": sum(baseline_right) / len(rows),
        "majority_accuracy": sum(row["label"] == baseline.majority for row in rows) / len(rows),
        "only_model_right": float(pairs[True, False]),
        "only_baseline_right": float(pairs[False, True]),
    }
    return metrics, by_record(baseline_right)


def _beside_argmax(
    task: Labelling, rows: Sequence[dict[str, Any]], guesses: Sequence[str], plain: Sequence[str]
) -> dict[str, float]:
    """Figures of the plain argmax beside those of the chosen thresholds, and costs; empty without thresholds."""
    if task.spec.thresholds is None:
        return {}
    true = [row["label"] for row in rows]
    confusion = confusion_of(rows, plain, task.labels)
    figures = {
        "argmax_accuracy": sum(truth == label for truth, label in zip(true, plain, strict=True)) / len(rows),
        "argmax_macro_f1": sum(f1(confusion, label) for label in task.labels) / len(task.labels),
    }
    if task.spec.costs is None:
        return figures
    costs = {
        name: sum(task.spec.costs.get(truth, {}).get(label, 0.0) for truth, label in zip(true, labels, strict=True))
        for name, labels in (("mean_cost", guesses), ("argmax_mean_cost", plain))
    }
    return figures | {name: total / len(rows) for name, total in costs.items()}


def confusion_of(
    rows: Sequence[dict[str, Any]], guesses: Sequence[str], labels: Sequence[str]
) -> dict[str, dict[str, int]]:
    """True label -> answered label -> number of records."""
    confusion = {true: dict.fromkeys(labels, 0) for true in labels}
    for row, guess in zip(rows, guesses, strict=True):
        confusion[row["label"]][guess] += 1
    return confusion


def f1(confusion: dict[str, dict[str, int]], label: str) -> float:
    """F1 of one label, the harmonic mean of precision and recall; 0 without a correct answer."""
    hits = confusion[label][label]
    predicted = sum(row[label] for row in confusion.values())
    true = sum(confusion[label].values())
    return 2 * hits / (predicted + true) if predicted + true else 0.0
