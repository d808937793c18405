"""How much marked training records counted beside the others: whether a weighting found the wrong labels.

Reads the account that training left in the model's folder; records are marked by the end of their `origin`, as the
embedded world marks those whose label it made wrong.
"""

from typing import Any

import pyarrow.parquet as pq

from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.evaluation import Subject
from pipeline.paths import MODELS


class Settings(Section):
    marked: str
    """What the origin of a marked record ends with: ":wrong"."""


def measure(settings: Settings, subject: Subject) -> tuple[dict[str, float], dict[str, Any]]:
    """weight_marked, weight_others (means; 1 counts as the average record) and their ratio; details: who counted least.

    Raises:
        UserError: the model's weighting kept no account, or no record is marked, or all are.
    """
    path = MODELS / subject.name / "weights.parquet"
    if not path.exists():
        raise UserError(
            f"{path}: no such file; measure `weights` is for a recipe whose weighting judges records (reweight)"
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
