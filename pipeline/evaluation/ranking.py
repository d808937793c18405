"""Ranking by a classifier's probabilities, whatever its thresholds: area under the ROC curve and average precision.

Of two labels those of the second one; of more the mean over the labels, each against the rest. Computed by
scikit-learn.
"""

from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, label_probabilities, records


class Settings(Section):
    """Split, source and batch size."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the labelled records to measure on."""
    source: str | None = Field(examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Texts in a batch; their number does not change the metrics."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """auc (0.5: by chance) and average_precision; details: both by label.

    Raises:
        UserError: a model without labels, no record of the source, or a label that none or all of the records have.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    task = subject.labelling("ranking")
    rows = records(subject, "labelled", settings.split, settings.source)
    probabilities_NC = np.asarray(
        label_probabilities(subject, task, [row["text"] for row in rows], settings.batch_size), np.float64
    )
    by_label: dict[str, Any] = {}
    for index, label in enumerate(task.labels):
        true_N = np.array([row["label"] == label for row in rows])
        if true_N.all() or not true_N.any():
            raise UserError(
                f"{settings.split}: {'all' if true_N.all() else 'none'} of the {len(rows)} records have label "
                f"{label!r}; a ranking needs records with and without it"
            )
        by_label[label] = {
            "auc": float(roc_auc_score(true_N, probabilities_NC[:, index])),
            "average_precision": float(average_precision_score(true_N, probabilities_NC[:, index])),
        }
    used = task.labels[1:] if len(task.labels) == 2 else task.labels
    metrics = {name: sum(by_label[label][name] for label in used) / len(used) for name in ("auc", "average_precision")}
    return Measured(metrics, {"by_label": by_label})
