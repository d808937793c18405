"""Outcomes: the value of a metric on every held-out record, for paired comparisons, slices and their intervals.

A measure returns `Outcomes`; an evaluation writes all of them to reports/evaluation/<model>/outcomes.parquet:

    measure, metric   the metric whose value on a record this is; the metric is their mean
    record            id of the record
    cluster           what makes records alike (person, fact, document, column `group`); else the record's id
    value             1.0 and 0.0 for right and wrong, nats, an error, ...
    slices            dimension -> value of the record: language, source, label, length, and columns that a source added

A slice is the set of records with one value of a dimension.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.significance import ERROR_RATE, wilson

SCHEMA = pa.schema(
    [
        pa.field("measure", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("record", pa.string(), nullable=False),
        pa.field("cluster", pa.string(), nullable=False),
        pa.field("value", pa.float64(), nullable=False),
        pa.field("slices", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)
FEWEST = 10
"""Records that a slice needs to be shown: the interval of fewer says nothing."""
_MOST_VALUES = 20  # a column with more different values than this is an identifier, no dimension
_NO_DIMENSION = frozenset(
    {"id", "split", "origin", "time", "history", "bits", "group", "twin_of", "start", "length", "bytes"}
)
_TEXTS = ("text", "instruction", "input", "output", "chosen", "rejected")
_LOWER_ENDS = ("_nats", "_loss", "_error", "_errors", "_bits", "_bits_per_byte", "_gap", "_amplification")
_LOWER_STARTS = (
    "exposure_", "extraction_", "membership_", "personal_data_", "contamination_share", "contamination_overlap",
    "loss_nats_", "bits_per_byte_", "forgotten_nats_",  # of a source or a language: bits_per_byte_over_known_tr
)  # fmt: skip
_NEITHER_STARTS = ("crows_", "bias_log_odds", "kl_", "answer_tokens", "reward_length_", "judged_length_")
_LOWER_NAMES = frozenset(
    [
        "rmse",
        "mae",
        "brier",
        "calibrated_brier",
        "ece",
        "calibrated_ece",
        "reward_ece",
        "bits_per_byte",
        "perplexity",
        "hamming_loss",
        "mean_cost",
    ]
)


class Outcomes(NamedTuple):
    """The value of one metric on every record; the metric is their mean."""

    metric: str
    records: Sequence[Mapping[str, Any]]
    """The records as read, each with `id`; language, source, label and added columns become slices."""
    values: Sequence[float]
    clusters: Sequence[str] | None = None
    """What makes records alike; None: the record's `group`, and its id where it has none."""


class Slice(NamedTuple):
    """The mean of a metric over the records of one slice."""

    measure: str
    metric: str
    dimension: str
    value: str
    """The dimension's value."""
    records: int
    mean: float
    low: float
    """95 % interval of the mean; all slices of a dimension hold it at once (Bonferroni)."""
    high: float


def direction(metric: str) -> Literal["higher", "lower", "neither"]:
    """Which values of a metric are better, by its name.

    lower: losses, errors, bits, gaps, costs, memorisation; neither: preferences between groups of people, best at a
    value in between, which the policy judges by bounds of risk only; lengths of answers and distances to a reference.
    """
    if metric.startswith(_NEITHER_STARTS):
        return "neither"
    lower = metric in _LOWER_NAMES or metric.endswith(_LOWER_ENDS) or metric.startswith(_LOWER_STARTS)
    return "lower" if lower else "higher"


def lower_is_better(metric: str) -> bool:
    """Whether lower values of a metric are better, by its name."""
    return direction(metric) == "lower"


def plain(measured: Outcomes) -> dict[str, Any]:
    """The outcomes as JSON: metric, records (ids), clusters, values, slices (dimension -> a value per record)."""
    rows = measured.records
    groups = measured.clusters or [str(row.get("group") or row["id"]) for row in rows]
    return {
        "metric": measured.metric,
        "records": [str(row["id"]) for row in rows],
        "clusters": list(groups),
        "values": [float(value) for value in measured.values],
        "slices": _dimensions(rows),
    }


def table(by_measure: Mapping[str, Sequence[Mapping[str, Any]]]) -> pa.Table:
    """The table of a model's outcomes: measure -> its outcomes as JSON (`plain`), in this order."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for measure, several in by_measure.items():
        for outcomes in several:
            n, dimensions = len(outcomes["records"]), outcomes["slices"]
            columns["measure"] += [measure] * n
            columns["metric"] += [outcomes["metric"]] * n
            columns["record"] += outcomes["records"]
            columns["cluster"] += outcomes["clusters"]
            columns["value"] += outcomes["values"]
            columns["slices"] += [
                [(name, cells[i]) for name, cells in dimensions.items() if cells[i] is not None] for i in range(n)
            ]
    return pa.table(columns, schema=SCHEMA)


def read(path: Path) -> pa.Table:
    """The table of a file that an evaluation wrote; an empty one where there is none (a model evaluated before)."""
    return pq.ParquetFile(path).read() if path.is_file() else SCHEMA.empty_table()


def slices(outcomes: pa.Table) -> list[Slice]:
    """Every slice with at least FEWEST records, by measure, metric, dimension and value."""
    made = []
    for (measure, metric), rows in by_metric(outcomes).items():
        values, parts = values_of(rows), rows_of_slices(rows)
        at_once = Counter(dimension for dimension, _ in parts)
        made += [
            Slice(measure, metric, dimension, value, len(at), *mean_interval(values[at], at_once[dimension]))
            for (dimension, value), at in parts.items()
        ]
    return made


def rows_of_slices(rows: pa.Table) -> dict[tuple[str, str], np.ndarray]:
    """(dimension, value) -> its rows, for slices with at least FEWEST records of dimensions with several values."""
    parts = {}
    for dimension, cells in _cells(rows).items():
        known = sorted(set(cells.tolist()) - {""})
        for value in known if len(known) > 1 else []:
            at = np.flatnonzero(cells == value)
            if len(at) >= FEWEST:
                parts[dimension, value] = at
    return parts


def worst(shown: Sequence[Slice]) -> list[Slice]:
    """The worst slice of every measure and metric: the lowest mean, or the highest where lower is better; none of a
    metric of which neither is."""
    by: dict[tuple[str, str], Slice] = {}
    for one in shown:
        if direction(one.metric) == "neither":
            continue
        sign, key = -1 if lower_is_better(one.metric) else 1, (one.measure, one.metric)
        if key not in by or sign * one.mean < sign * by[key].mean:
            by[key] = one
    return list(by.values())


def by_metric(outcomes: pa.Table) -> dict[tuple[str, str], pa.Table]:
    """(measure, metric) -> its rows, in the order of the table."""
    keys = list(zip(outcomes["measure"].to_pylist(), outcomes["metric"].to_pylist(), strict=True))
    parts: dict[tuple[str, str], list[pa.Table]] = {}
    first = 0
    for key, run in groupby(keys):  # slices of the table: comparing a column with a value would import pandas
        length = len(list(run))
        parts.setdefault(key, []).append(outcomes.slice(first, length))
        first += length
    return {key: pa.concat_tables(slices) for key, slices in parts.items()}


def values_of(rows: pa.Table) -> np.ndarray:
    """The values of these rows; arrow's own conversion would import pandas."""
    return np.array(rows["value"].to_pylist())


def mean_interval(values: np.ndarray, at_once: int = 1) -> tuple[float, float, float]:
    """Mean and interval: Wilson's for values of 0 and 1, else Student's t; 95 % for `at_once` intervals together."""
    mean, n, rate = float(values.mean()), len(values), ERROR_RATE / max(1, at_once)
    if set(np.unique(values).tolist()) <= {0.0, 1.0}:
        return mean, *wilson(mean, n, rate)
    if n < 2:
        return mean, -math.inf, math.inf
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 1 - rate / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean, mean - half, mean + half


def _cells(rows: pa.Table) -> dict[str, np.ndarray]:
    """Dimension -> its value for every row, "" where a row has none."""
    maps = [dict(pairs) for pairs in rows["slices"].to_pylist()]
    names = dict.fromkeys(name for row in maps for name in row)
    return {name: np.array([row.get(name, "") for row in maps], dtype=object) for name in names}


def _dimensions(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """Dimension -> its value for every record: columns with few values, and the length of the text in thirds."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {
        name: [None if row.get(name) is None else str(row[name]) for row in rows]
        for name in names
        if name not in _NO_DIMENSION and name not in _TEXTS
    }
    kept = {name: cells for name, cells in columns.items() if len(set(cells) - {None}) <= _MOST_VALUES}
    return kept | _by_length(rows)


def _by_length(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """The length of the text or question in characters, in thirds of these records."""
    lengths = [sum(len(str(row.get(name) or "")) for name in ("text", "instruction", "input")) for row in rows]
    if len(set(lengths)) < 3:
        return {}
    low, high = (int(cut) for cut in np.quantile(lengths, [1 / 3, 2 / 3], method="lower"))
    if not low < high < max(lengths):
        return {}
    names = f"up to {low} characters", f"{low + 1} to {high} characters", f"over {high} characters"
    return {"length": [names[(length > low) + (length > high)] for length in lengths]}
