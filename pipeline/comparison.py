"""Paired comparison of two models on the same held-out records: better, worse or cannot tell.

The differences of the records are summed by cluster, for records that are alike (of one person, fact or document) do
not count as so many independent ones. The test turns the signs of the clusters' sums at random (a randomisation test;
Fisher 1935, The Design of Experiments, section 21): were the two models equal, either sign would be as likely. For
right and wrong answers without clusters it is McNemar's exact test. Several metrics share the error rate (Holm 1979).

The detectable difference is the smallest that this test would find in 80 % of repetitions: a candidate that is better
by less stays `cannot tell`, however good it is.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import outcomes
from pipeline.errors import UserError
from pipeline.outcomes import direction
from pipeline.seeds import seed_for
from pipeline.significance import ERROR_RATE, Verdict, mcnemar

POWER = 0.8
_TURNS = 4999  # draws of signs: the smallest p-value is 2e-4
_TURNS_EACH = 100  # for so many comparisons at once: the smallest p-value is a fifth of what Holm asks of the first
_MOST_CLUSTERS = 1_000_000  # signs drawn at once


@dataclass(frozen=True)
class Compared:
    """One metric of a candidate beside that of another model on the same records."""

    measure: str
    metric: str
    candidate: float
    """Mean over the records."""
    champion: float
    difference: float
    """Candidate less champion."""
    low: float
    """95 % interval of the difference, all metrics of the comparison at once."""
    high: float
    verdict: Verdict
    """Of the candidate."""
    records: int
    clusters: int
    detectable: float
    """Smallest difference that the test finds in 80 % of repetitions."""
    p_value: float
    """Two-sided, before the correction for several metrics."""


def compare(candidate: pa.Table, champion: pa.Table, metrics: Collection[str] | None = None) -> list[Compared]:
    """Every metric that both tables of outcomes have on the same records, or those named.

    Raises:
        UserError: a named metric was measured on different records, or is in only one of the tables.
    """
    ours, theirs = outcomes.by_metric(candidate), outcomes.by_metric(champion)
    shared = [key for key in ours if key in theirs and (metrics is None or key[1] in metrics)]
    if metrics is None:  # a measure may leave out records that are too long for one of the models
        shared = [key for key in shared if _same_records(ours[key], theirs[key])]
    if missing := sorted(set(metrics or ()) - {metric for _, metric in shared}):
        known = sorted({metric for _, metric in ours})
        raise UserError(f"{missing[0]} has no value by record for both models; measured: {', '.join(known) or 'none'}")
    compared = [_compared(key, ours[key], theirs[key], len(shared)) for key in shared]
    return _by_holm(compared)


def compare_slices(
    candidate: pa.Table, champion: pa.Table, metrics: Collection[str]
) -> list[tuple[str, str, Compared]]:
    """(dimension, value, comparison) of every slice with enough records; all of them share the error rate (Holm)."""
    ours, theirs = outcomes.by_metric(candidate), outcomes.by_metric(champion)
    named: list[tuple[str, str]] = []
    pairs = []
    for key in ours:
        if key[1] not in metrics or key not in theirs or not _same_records(ours[key], theirs[key]):
            continue
        parts = outcomes.rows_of_slices(ours[key])
        for (dimension, value), rows in parts.items():
            named.append((dimension, value))
            pairs.append((key, ours[key].take(rows), theirs[key].take(rows)))
    compared = _by_holm([_compared(*pair, len(pairs)) for pair in pairs])
    return [(*name, one) for name, one in zip(named, compared, strict=True)]


def _compared(key: tuple[str, str], ours: pa.Table, theirs: pa.Table, at_once: int) -> Compared:
    """One metric; its verdict is that of the p-value alone, which `_by_holm` corrects."""
    if not _same_records(ours, theirs):
        raise UserError(
            f"{key[0]}: the two models were measured on different records ({len(ours)} and {len(theirs)}); "
            "evaluate both on the same samples"
        )
    first, second = outcomes.values_of(ours), outcomes.values_of(theirs)
    names, cluster_N = np.unique(np.array(ours["cluster"].to_pylist(), dtype=object), return_inverse=True)
    difference_N = first - second
    sums = np.bincount(cluster_N, difference_N, len(names))
    sizes = np.bincount(cluster_N, minlength=len(names))
    binary = set(np.unique(np.concatenate([first, second])).tolist()) <= {0.0, 1.0}
    unit = 1.0 if binary else float(difference_N.std())
    mean, error = float(difference_N.mean()), _standard_error(sums, sizes, unit)
    quantile = _quantile(ERROR_RATE / 2 / at_once, len(names) - 1)
    p_value = sign_test(sums, seed_for(1, "comparison", *key), max(_TURNS, _TURNS_EACH * at_once))
    return Compared(
        measure=key[0], metric=key[1], candidate=float(first.mean()), champion=float(second.mean()),
        difference=mean, low=mean - quantile * error, high=mean + quantile * error, verdict=_verdict(key[1], mean),
        records=len(first), clusters=len(names), detectable=_detectable(sums, len(first), (quantile, error), at_once),
        p_value=p_value,
    )  # fmt: skip


def _same_records(ours: pa.Table, theirs: pa.Table) -> bool:
    return bool(ours["record"].to_pylist() == theirs["record"].to_pylist())


def sign_test(sums: np.ndarray, seed: int, turns: int = _TURNS) -> float:
    """Two-sided p-value of the hypothesis that each cluster's sum is as likely to be negative as positive.

    Exact where all sums have one size (McNemar's test); otherwise by signs drawn at random.
    """
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    if len(set(np.abs(sums).tolist())) == 1:
        won = int((sums > 0).sum())
        return min(1.0, 2 * mcnemar(max(won, len(sums) - won), min(won, len(sums) - won)))
    generator, observed, as_far, drawn = np.random.default_rng(seed), abs(float(sums.sum())), 0, 0
    while drawn < turns:
        size = min(turns - drawn, max(1, _MOST_CLUSTERS // len(sums)))
        signs = generator.integers(0, 2, (size, len(sums)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(signs @ sums) >= observed - 1e-12 * len(sums)).sum())
        drawn += size
    return (1 + as_far) / (1 + turns)


def _detectable(sums: np.ndarray, records: int, interval: tuple[float, float], at_once: int) -> float:
    """The smallest mean difference that the test finds with probability POWER.

    Args:
        sums: the clusters' sums.
        records: number of records.
        interval: quantile and standard error of the interval.
        at_once: metrics that share the error rate.
    """
    quantile, error = interval
    detectable = (quantile + _quantile(1 - POWER, len(sums) - 1)) * error
    sizes = np.abs(sums[sums != 0])
    if len(sums) < records or not set(sizes.tolist()) <= {1.0}:
        return detectable
    level, disagreed = ERROR_RATE / 2 / at_once, len(sizes) + 2
    while detectable < 1 and _power(detectable, records, disagreed, level) < POWER:
        detectable += 1 / records  # the exact test of few records needs more than the normal distribution says
    return min(1.0, detectable)


def _power(gain: float, records: int, disagreed: int, level: float) -> float:
    """Probability that McNemar's test finds a model better that wins `gain` of the records more than it loses.

    Args:
        gain: share of the records.
        records: number of records.
        disagreed: expected number of records on which the two models disagree; taken as no less than the gain.
        level: error rate in one direction.
    """
    from scipy.stats import binom

    share = min(1.0, max(disagreed / records, gain))
    numbers = np.arange(1, records + 1)
    chances = binom.pmf(numbers, records, share)
    numbers, chances = numbers[chances > 1e-6], chances[chances > 1e-6]
    least = binom.isf(level, numbers, 0.5) + 1  # fewest records won that the test accepts
    return float((chances * binom.sf(least - 1, numbers, (1 + gain / share) / 2)).sum())


def _by_holm(compared: list[Compared]) -> list[Compared]:
    """The comparisons with verdicts: the smallest p-value against rate / n, the next against rate / (n - 1), ..."""
    order = sorted(range(len(compared)), key=lambda i: compared[i].p_value)
    verdicts: dict[int, Verdict] = {}
    holds = True
    for rank, i in enumerate(order):
        holds = holds and compared[i].p_value <= ERROR_RATE / (len(order) - rank)
        verdicts[i] = compared[i].verdict if holds else "cannot tell"
    return [Compared(**(vars(one) | {"verdict": verdicts[i]})) for i, one in enumerate(compared)]


def _verdict(metric: str, difference: float) -> Verdict:
    """Of a significant difference; of a metric without a better direction always `cannot tell`."""
    better = direction(metric)
    if difference == 0 or better == "neither":
        return "cannot tell"
    return "better" if (difference < 0) == (better == "lower") else "worse"


def _standard_error(sums: np.ndarray, sizes: np.ndarray, unit: float) -> float:
    """Standard error of the mean difference, robust to clusters (Liang, Zeger 1986), with one record won and one lost
    added (Bonett, Price 2012), without which equal answers on all records would leave no uncertainty.

    Args:
        sums: the clusters' sums.
        sizes: the clusters' numbers of records.
        unit: the difference of an added record: 1 of right and wrong answers, else the records' standard deviation.
    """
    sums, sizes = np.append(sums, [unit, -unit]), np.append(sizes, [1, 1])
    n, clusters = sizes.sum(), len(sums)
    residuals = sums - sizes * (sums.sum() / n)
    return float(np.sqrt((residuals**2).sum() * clusters / (clusters - 1)) / n)


def _quantile(level: float, freedom: int) -> float:
    """Quantile of Student's t that is exceeded with probability `level`."""
    from scipy.special import stdtrit

    return -float(stdtrit(max(1, freedom), level))
