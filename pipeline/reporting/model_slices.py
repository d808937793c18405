"""Rows of a model's page with an interval each: its scores beside another model, and its worst slices."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline import outcomes
from pipeline.reporting.in_words import dimension_in_words
from pipeline.reporting.risks import whisker
from pipeline.reporting.wording import Words


class Beside(NamedTuple):
    """A score of this model beside that of another one."""

    metric: str
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    verdict: str
    records: int
    clusters: int
    detectable: float
    picture: str


class Group(NamedTuple):
    """A row of the worst slices."""

    metric: str
    shown: str
    """`language: tr`."""
    value: float
    low: float
    high: float
    records: int
    champion: float | None
    verdict: str
    """Against the champion; empty on the graph's page."""
    picture: str


def beside(rows: Iterable[Mapping[str, Any]]) -> list[Beside]:
    """Comparisons with the picture of their interval.

    Args:
        rows: fields of pipeline.comparison.Compared.
    """
    return [
        Beside(
            **{key: row[key] for key in Beside._fields if key != "picture"},
            picture=whisker(row["low"], row["difference"], row["high"], _around_zero(row["low"], row["high"])),
        )
        for row in rows
    ]


def _around_zero(low: float, high: float) -> tuple[float, float]:
    most = max(abs(low), abs(high)) or 1.0
    return -most, most


def groups(table: Any, policy: Mapping[str, Any] | None, words: Words) -> list[Group]:
    """Slices: beside the champion the largest losses first, else the worst of each metric first.

    Args:
        table: outcomes of the model's records.
        policy: result of the policy in a review; None: the page of the graph.
        words: of the page.
    """
    if policy is not None and any(row["champion"] is not None for row in policy["slices"]):
        return [
            Group(
                row["metric"], dimension_in_words(row["dimension"], row["value"], words), row["candidate"], row["low"],
                row["high"], row["records"], row["champion"], row["verdict"],
                whisker(row["low"], row["candidate"] - row["champion"], row["high"],
                        _around_zero(row["low"], row["high"])),
            )
            for row in policy["slices"]
        ]  # fmt: skip
    by_metric: dict[tuple[str, str], list[outcomes.Slice]] = {}
    for one in outcomes.slices(table):
        by_metric.setdefault((one.measure, one.metric), []).append(one)
    worst_first: list[list[Group]] = []
    for (_, metric), own in by_metric.items():
        span = min(one.low for one in own), max(one.high for one in own)
        own.sort(key=lambda one: one.mean, reverse=outcomes.lower_is_better(metric))
        worst_first.append([
            Group(metric, dimension_in_words(one.dimension, one.value, words), one.mean, one.low, one.high, one.records,
                  None, "", whisker(one.low, one.mean, one.high, span))
            for one in own
        ])  # fmt: skip
    return _alternating(worst_first)


def _alternating(by_metric: Sequence[Sequence[Group]]) -> list[Group]:
    """The worst group of every metric, then the next of every metric, and so on."""
    longest = max(map(len, by_metric), default=0)
    return [own[place] for place in range(longest) for own in by_metric if place < len(own)]
