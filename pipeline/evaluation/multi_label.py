"""F1 and accuracy of whole label sets of a multi-label classifier on held-out texts, beside a baseline on the same.

The baseline is TF-IDF with one logistic regression a label (one-vs-rest), trained on all training records. The records
whose label set only one of the two gets right decide whether the model is better (McNemar's test), as for a classifier.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data.label_cells import labels_of
from pipeline.data.personal import mask
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, baseline_sets, by_record, of_source, records, text_scores
from pipeline.outcomes import Outcomes

Sets = Sequence[frozenset[str]]


class Settings(Section):
    """Split, source, batch size and baseline."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    source: str | None = Field(default=None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""
    baseline: Literal["bag_of_words"] | None = Field(examples=["bag_of_words", None])
    """Classifier to compare with on the same records: TF-IDF with a logistic regression a label; null: none."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """accuracy (of whole label sets), micro_f1, macro_f1, hamming_loss (share of wrong label decisions),
    label_loss_nats, examples; with chosen thresholds half_accuracy, half_micro_f1, half_macro_f1 (at 0.5); with a
    baseline baseline_accuracy, baseline_micro_f1, baseline_macro_f1, majority_accuracy (the most frequent label set for
    all), only_model_right and only_baseline_right (records); details: precision, recall and F1 by label, up to 50 wrong
    answers, score by record.

    Raises:
        UserError: a model without the task multi_label, or a label that it was not trained on.
    """
    task = subject.scoring("multi_label", "multi_label")
    labels: list[str] = list(task.spec.labels or ())
    rows = records(subject, "labelled", settings.split, settings.source)
    true = [frozenset(labels_of(row["label"])) for row in rows]
    if unknown := sorted(frozenset[str]().union(*true) - set(labels)):
        raise UserError(
            f"data/samples/labelled/{settings.split}.parquet: labels {unknown} were never trained on; {subject.name} "
            f"knows {labels}"
        )
    scores_NC = text_scores(subject, task, [row["text"] for row in rows], settings.batch_size)
    answers = task.answers(scores_NC)
    guesses = [frozenset(answer["labels"]) for answer in answers]
    right = [truth == guess for truth, guess in zip(true, guesses, strict=True)]
    nats = [
        -math.log(max(p if label in truth else 1 - p, 1e-30))
        for truth, answer in zip(true, answers, strict=True)
        for label, p in answer["probabilities"].items()
    ]
    metrics = figures(true, guesses, labels) | {
        "hamming_loss": sum(len(t ^ g) for t, g in zip(true, guesses, strict=True)) / (len(rows) * len(labels)),
        "label_loss_nats": sum(nats) / len(nats),
        "examples": float(len(rows)),
    }
    if task.spec.thresholds is not None:
        at_half = [frozenset(label for label, p in a["probabilities"].items() if p >= 0.5) for a in answers]
        metrics |= {f"half_{name}": value for name, value in figures(true, at_half, labels).items()}
    wrong = [
        {"text": mask(row["text"])[:300], "labels": sorted(truth), "answer": sorted(guess), "origin": row["origin"]}
        for row, truth, guess, ok in zip(rows, true, guesses, right, strict=True)
        if not ok
    ]
    details = {"labels": by_label(true, guesses, labels), "wrong": wrong[:50], "by_record": by_record(right)}
    outcomes = (Outcomes("accuracy", rows, right),)
    if settings.baseline is None:
        return Measured(metrics, details, outcomes)
    baseline = baseline_sets(subject, settings.split)
    of_rows = of_source(baseline.labels, subject, settings.split, settings.source)
    theirs = [frozenset(chosen) for chosen in of_rows]
    their_right = [truth == guess for truth, guess in zip(true, theirs, strict=True)]
    pairs = Counter(zip(right, their_right, strict=True))
    metrics |= {f"baseline_{name}": value for name, value in figures(true, theirs, labels).items()} | {
        "majority_accuracy": sum(truth == frozenset(baseline.majority) for truth in true) / len(rows),
        "only_model_right": float(pairs[True, False]),
        "only_baseline_right": float(pairs[False, True]),
    }
    return Measured(metrics, details | {"baseline_by_record": by_record(their_right)}, outcomes)


def figures(true: Sets, guesses: Sets, labels: Sequence[str]) -> dict[str, float]:
    """accuracy (share of records whose whole set is right), micro_f1 and macro_f1; F1 is 0 where nothing is found."""
    counts = by_label(true, guesses, labels)
    hits = sum(len(truth & guess) for truth, guess in zip(true, guesses, strict=True))
    total = sum(map(len, true)) + sum(map(len, guesses))
    return {
        "accuracy": sum(truth == guess for truth, guess in zip(true, guesses, strict=True)) / len(true),
        "micro_f1": 2 * hits / total if total else 0.0,
        "macro_f1": sum(row["f1"] for row in counts.values()) / len(labels),
    }


def by_label(true: Sets, guesses: Sets, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Label -> precision, recall, f1 and the number of its records; 0 where a ratio has no denominator."""
    table = {}
    for label in labels:
        pairs = Counter((label in truth, label in guess) for truth, guess in zip(true, guesses, strict=True))
        hits, found, there = pairs[True, True], pairs[True, True] + pairs[False, True], pairs[True, True]
        there += pairs[True, False]
        table[label] = {
            "precision": hits / found if found else 0.0,
            "recall": hits / there if there else 0.0,
            "f1": 2 * hits / (found + there) if found + there else 0.0,
            "records": float(there),
        }
    return table
