"""Errors of a regression model on held-out texts, beside a baseline on the same.

The baseline is TF-IDF with ridge regression, trained on all training records. The records on which one of the two is
closer to the true number decide whether the model is better (sign test).
"""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data.label_cells import number_in
from pipeline.data.personal import mask
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, baseline_numbers, by_record, of_source, records, text_scores
from pipeline.outcomes import Outcomes


class Settings(Section):
    """Split, source, batch size and baseline."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    source: str | None = Field(default=None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""
    baseline: Literal["bag_of_words"] | None = Field(examples=["bag_of_words", None])
    """Model to compare with on the same records: TF-IDF with ridge regression; null: none."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """rmse, mae, r2, spearman (rank correlation; 0 where all answers are equal), examples; with a baseline
    baseline_rmse, baseline_mae, mean_rmse (the mean of the training targets for all), model_closer and baseline_closer
    (records); details: up to 50 answers with the largest errors, absolute error by record.

    Raises:
        UserError: a model without the task regress, a label that is no number, or numbers that are all equal.
    """
    task = subject.scoring("regression", "regress")
    rows = records(subject, "labelled", settings.split, settings.source)
    file = f"data/samples/labelled/{settings.split}.parquet"
    true = numbers([row["label"] for row in rows], file)
    if len(set(true)) < 2:
        raise UserError(
            f"{file}: all labels are {true[0] if true else 'missing'}; a regression needs different numbers"
        )
    scores_NC = text_scores(subject, task, [row["text"] for row in rows], settings.batch_size)
    values = [answer["value"] for answer in task.answers(scores_NC)]
    errors = [abs(truth - value) for truth, value in zip(true, values, strict=True)]
    metrics = figures(true, values) | {"examples": float(len(rows))}
    worst = sorted(range(len(rows)), key=lambda row: -errors[row])[:50]
    shown = [
        {
            "text": mask(rows[row]["text"])[:300],
            "value": true[row],
            "answer": values[row],
            "origin": rows[row]["origin"],
        }
        for row in worst
    ]
    details: dict[str, Any] = {"largest_errors": shown, "error_by_record": by_record(errors)}
    outcomes = (Outcomes("mae", rows, errors),)
    if settings.baseline is None:
        return Measured(metrics, details, outcomes)
    baseline = baseline_numbers(subject, settings.split)
    values = of_source(baseline.values, subject, settings.split, settings.source)
    theirs = [abs(truth - value) for truth, value in zip(true, values, strict=True)]
    of_baseline = figures(true, values)
    metrics |= {
        "baseline_rmse": of_baseline["rmse"],
        "baseline_mae": of_baseline["mae"],
        "mean_rmse": figures(true, [baseline.mean] * len(true))["rmse"],
        "model_closer": float(sum(ours < other for ours, other in zip(errors, theirs, strict=True))),
        "baseline_closer": float(sum(ours > other for ours, other in zip(errors, theirs, strict=True))),
    }
    return Measured(metrics, details | {"baseline_error_by_record": by_record(theirs)}, outcomes)


def numbers(cells: Sequence[str], file: str) -> list[float]:
    """The numbers of label cells. Raises UserError for a cell that is no number, naming the file."""
    read = [number_in(cell) for cell in cells]
    bad = next((cell for cell, number in zip(cells, read, strict=True) if number is None), None)
    if bad is not None:
        raise UserError(f"{file}: label {bad!r:.60} is no number; expected numbers: label_form: number in the source")
    return [number for number in read if number is not None]


def figures(true: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """rmse, mae, r2 (share of the variance explained; below 0: worse than the mean) and spearman."""
    from scipy.stats import spearmanr

    squares = sum((truth - value) ** 2 for truth, value in zip(true, values, strict=True))
    mean = statistics.fmean(true)
    varied = len(set(values)) > 1
    return {
        "rmse": math.sqrt(squares / len(true)),
        "mae": statistics.fmean(abs(truth - value) for truth, value in zip(true, values, strict=True)),
        "r2": 1 - squares / sum((truth - mean) ** 2 for truth in true),
        "spearman": float(spearmanr(true, values).statistic) if varied else 0.0,
    }
