"""Calibration of a classifier: whether answers given with probability p are right in a share p of cases.

Expected calibration error over bins of equal mass (Nixon et al. 2019, section 3.3: with bins of equal width most are
empty), and the Brier score, mean squared error of the probabilities summed over the labels (Brier 1950). Both again
after dividing the logits by a temperature that is fitted on validation records by likelihood (Guo et al. 2017).
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, records, text_scores
from pipeline.outcomes import Outcomes
from pipeline.tasks import Labelling

_COLDEST, _HOTTEST = 0.05, 20.0  # temperatures that are tried


class Settings(Section):
    """Split, source, bins and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on; the temperature is fitted on validation records."""
    source: str | None = Field(examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    bins: Positive = Field(examples=[2])
    """Bins of the calibration error, each with as many records; 15 is usual."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""


class Labelled(NamedTuple):
    """Logits of records, and the indices of their labels."""

    rows: list[dict[str, Any]]
    scores_NC: np.ndarray
    labels_N: np.ndarray


def measure(settings: Settings, subject: Subject) -> Measured:
    """ece, brier, temperature, calibrated_ece, calibrated_brier; details: mean probability and accuracy of every bin.

    Raises:
        UserError: a model without labels, no record of the source, a label that it was not trained on.
    """
    task = subject.labelling("calibration")
    held_out = _labelled(settings, subject, task, settings.split)
    fitted_on = _labelled(settings, subject, task, "validation")
    temperature = fitted_temperature(fitted_on.scores_NC, fitted_on.labels_N)
    before, after = (softmax(held_out.scores_NC / by) for by in (1.0, temperature))
    squares = brier_by_record(before, held_out.labels_N)
    metrics = {
        "ece": calibration_error(before, held_out.labels_N, settings.bins),
        "brier": float(squares.mean()),
        "temperature": temperature,
        "calibrated_ece": calibration_error(after, held_out.labels_N, settings.bins),
        "calibrated_brier": float(brier_by_record(after, held_out.labels_N).mean()),
    }
    details = {
        "bins": bins_of(before, held_out.labels_N, settings.bins),
        "calibrated_bins": bins_of(after, held_out.labels_N, settings.bins),
    }
    return Measured(metrics, details, (Outcomes("brier", held_out.rows, squares.tolist()),))


def _labelled(settings: Settings, subject: Subject, task: Labelling, split: str) -> Labelled:
    rows = records(subject, "labelled", split, settings.source)
    if not rows:
        raise UserError(f"data/samples/labelled/{split}.parquet has no records; raise split.{split}")
    if unknown := sorted({row["label"] for row in rows} - set(task.labels)):
        raise UserError(f"{split}: labels {unknown} were never trained on; {subject.name} knows {task.labels}")
    scores_NC = text_scores(subject, task, [row["text"] for row in rows], settings.batch_size)
    labels_N = np.array([task.labels.index(row["label"]) for row in rows])
    return Labelled(rows, scores_NC.double().numpy(), labels_N)


def softmax(scores_NC: np.ndarray) -> np.ndarray:
    """Probabilities of logits."""
    probabilities: np.ndarray = torch.from_numpy(scores_NC).softmax(-1).numpy()
    return probabilities


def fitted_temperature(scores_NC: np.ndarray, labels_N: np.ndarray) -> float:
    """The divisor of the logits with the lowest mean -ln p of the labels, 0.05 to 20."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        logs_NC = torch.from_numpy(scores_NC / np.exp(log_temperature)).log_softmax(-1).numpy()
        return float(-logs_NC[np.arange(len(labels_N)), labels_N].mean())

    # -ln p is convex in 1 / temperature, so there is one minimum
    found = minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def brier_by_record(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Squared error of the probabilities, summed over the labels: [N], 0 to 2."""
    truth_NC = np.eye(probabilities_NC.shape[1])[labels_N]
    squares: np.ndarray = ((probabilities_NC - truth_NC) ** 2).sum(1)
    return squares


def bins_of(probabilities_NC: np.ndarray, labels_N: np.ndarray, bins: int) -> list[dict[str, float]]:
    """Records sorted by the probability of their answer, in bins of as equal a number as possible."""
    confidence_N, right_N = probabilities_NC.max(1), probabilities_NC.argmax(1) == labels_N
    parts = np.array_split(np.argsort(confidence_N, kind="stable"), min(bins, len(labels_N)))
    return [
        {
            "records": float(len(part)),
            "probability": float(confidence_N[part].mean()),
            "accuracy": float(right_N[part].mean()),
        }
        for part in parts
    ]


def calibration_error(probabilities_NC: np.ndarray, labels_N: np.ndarray, bins: int) -> float:
    """Mean distance of a bin's accuracy from the mean probability of its answers, weighted by records: 0 to 1."""
    parts = bins_of(probabilities_NC, labels_N, bins)
    total = sum(part["records"] * abs(part["probability"] - part["accuracy"]) for part in parts)
    return total / len(labels_N)
