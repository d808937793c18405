"""Mean example weight of marked training records and of the others: shows whether a weighting finds wrong labels.

Reads weights.parquet, which training with such a weighting writes to the model's folder. Records are marked by the end
of their `origin`: the embedded world marks its wrong labels so.
"""

from typing import Any

import pyarrow.parquet as pq
from pydantic import Field

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.evaluation import Subject
from pipeline.paths import MODELS


class Settings(Section):
    """Mark of the records."""

    marked: str = Field(examples=[":wrong"])
    """End of the `origin` of marked records: ":wrong"."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """weight_marked, weight_others (means; an average record has 1) and weight_ratio; details: the 40 lowest weights.

    Raises:
        UserError: the model's weighting wrote no weights, no record is marked, or all are.
    """
    path = MODELS / subject.name / "weights.parquet"
    if not path.exists():
        raise UserError(
            f"{path}: no such file; measure `weights` needs a recipe whose weighting records weights (reweight)"
        )
    rows = [row for row in pq.ParquetFile(path).read().to_pylist() if row["seen"]]
    marked = [row["weight"] for row in rows if row["origin"].endswith(settings.marked)]
    others = [row["weight"] for row in rows if not row["origin"].endswith(settings.marked)]
    if not marked or not others:
        raise UserError(
            f"evaluations.{subject.name}.measures.weights.marked is {settings.marked!r}: it marks {len(marked)} of "
            f"{len(rows)} records; name the end of some records' origin"
        )
    means = sum(marked) / len(marked), sum(others) / len(others)
    metrics = {"weight_marked": means[0], "weight_others": means[1], "weight_ratio": means[0] / max(means[1], 1e-9)}
    return metrics, {"least": rows[:40]}
