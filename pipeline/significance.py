"""Confidence intervals and tests: which differences of scores on held-out records are larger than chance.

- `wilson`: confidence interval of an accuracy (Wilson 1927; advised for few records by Brown, Cai, DasGupta 2001);
- `mcnemar`: exact test of two classifiers on the same records (McNemar 1947, by the binomial distribution);
- `compare`: two methods over seeds and held-out records, paired where the score of every record is known;
- `median_interval`: confidence interval of a median, for measured times.

A test of scores has three results: better, worse, cannot tell. For methods that are in truth equal it says better or
worse in at most ERROR_RATE of all repetitions, whatever the number of methods that are compared at once (Bonferroni).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

ERROR_RATE = 0.05
"""Rate, at most, of a difference found where there is none; both directions together."""
Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Scores:
    """Scores of one method on held-out records, from 0 to 1."""

    by_seed: tuple[float, ...]
    """Mean score over the records, for each seed."""
    records: int
    """Held-out records; 0: unknown, and every comparison is `cannot tell`."""
    by_record: tuple[float, ...] = ()
    """Score of each record, the mean over the seeds; empty: not kept."""
    seedless: bool = False
    """Whether the method has no random part, so that another seed would give the same scores."""

    @property
    def mean(self) -> float:
        """Mean over seeds and records."""
        return sum(self.by_seed) / len(self.by_seed)

    @property
    def seed_variance(self) -> float:
        """Variance over the seeds (n - 1 degrees of freedom); 0 for one seed."""
        return float(np.var(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else 0.0


@dataclass(frozen=True)
class SeedVariance:
    """Variance over seeds, pooled over all methods that are compared."""

    value: float
    freedom: int
    """Degrees of freedom: seeds less one, summed over the methods."""

    @classmethod
    def pooled(cls, methods: Sequence[Scores]) -> "SeedVariance":
        """The mean of the methods' variances, weighted by their degrees of freedom; 0 where each has one seed."""
        freedom = sum(len(method.by_seed) - 1 for method in methods)
        total = sum((len(method.by_seed) - 1) * method.seed_variance for method in methods)
        return cls(total / freedom if freedom else 0.0, freedom)


def wilson(accuracy: float, records: int, rate: float = ERROR_RATE) -> tuple[float, float]:
    """The confidence interval of an accuracy on so many records, 95 % by default; 0 to 1 without records.

    Wilson 1927, as equation 4 of Brown, Cai, DasGupta 2001 (Interval Estimation for a Binomial Proportion).
    """
    if records < 1:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1 - rate / 2)
    centre = (accuracy + z * z / (2 * records)) / (1 + z * z / records)
    half = z / (1 + z * z / records) * math.sqrt(accuracy * (1 - accuracy) / records + (z / (2 * records)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """One-sided p-value of McNemar's exact test, alternative: the first classifier is right more often.

    The chance of at least `only_first` of the records on which the two disagree, were each record as likely to be
    right under either.

    Args:
        only_first: records that only the first classifier labels right.
        only_second: records that only the second one labels right.
    """
    records = only_first + only_second
    total = 0.0
    for hits in range(only_first, records + 1):
        log_term = math.lgamma(records + 1) - math.lgamma(hits + 1) - math.lgamma(records - hits + 1)
        term = math.exp(log_term - records * math.log(2))
        total += term
        if 2 * hits > records and term < 1e-17 * total:
            break  # the terms fall from here on
    return min(1.0, total)


def mcnemar_verdict(only_first: int, only_second: int, comparisons: int = 1) -> Verdict:
    """Whether the first classifier is better than the second, by McNemar's exact test in both directions.

    Args:
        only_first: records that only the first classifier labels right.
        only_second: records that only the second one labels right.
        comparisons: comparisons that are made at once; they share ERROR_RATE.
    """
    level = ERROR_RATE / 2 / comparisons
    if mcnemar(only_first, only_second) <= level:
        return "better"
    return "worse" if mcnemar(only_second, only_first) <= level else "cannot tell"


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median, by order statistics: for any distribution.

    Hollander, Wolfe, Chicken 2014 (Nonparametric Statistical Methods, section 3.6); fewer than six values: their range.

    Args:
        values: independent measurements, at least one.
    """
    ordered = sorted(values)
    below, term, rank = 0.0, 0.5 ** len(ordered), 0
    while rank < (len(ordered) - 1) // 2 and below + term <= ERROR_RATE / 2:
        below += term
        term *= (len(ordered) - rank) / (rank + 1)
        rank += 1
    first = max(0, rank - 1)
    return ordered[first], ordered[len(ordered) - 1 - first]


def compare(first: Scores, second: Scores, seeds: SeedVariance, comparisons: int) -> Verdict:
    """Whether the first method's expected score, over seeds and records, is higher than the second's.

    With one seed each, and records that are right or wrong, by McNemar's exact test. Otherwise the difference is
    compared with its standard error times a quantile of Student's t: the mean of those of the parts of the variance,
    weighted by the parts (Cochran, Cox 1957, Experimental Designs, chapter 4; Welch's degrees of freedom find too many
    differences with two seeds). The variance is the sum of

    - that over the records: paired differences, with one record won and one lost added (Bonett, Price 2012); where
      scores of records are not kept, p (1 - p) / n of each method, with one right and one wrong record added (Agresti,
      Caffo 2000), which is an upper bound for every score from 0 to 1;
    - that over the seeds of each method: its own or the pooled one, the larger (two seeds may agree by chance).

    Args:
        first: a method.
        second: another one, on the same records.
        seeds: the pooled variance over seeds.
        comparisons: comparisons that are made at once; they share ERROR_RATE.
    """
    if not first.records or not second.records:
        return "cannot tell"
    if _is_paired(first, second) and not seeds.value and {*first.by_record, *second.by_record} <= {0.0, 1.0}:
        pairs = Counter(zip(first.by_record, second.by_record, strict=True))
        return mcnemar_verdict(pairs[1.0, 0.0], pairs[0.0, 1.0], comparisons)
    difference, parts = first.mean - second.mean, _variances(first, second, seeds)
    variance = sum(part for part, _ in parts)
    level = ERROR_RATE / 2 / comparisons
    quantile = sum(part * _quantile(level, freedom) for part, freedom in parts) / variance
    if abs(difference) <= quantile * math.sqrt(variance):
        return "cannot tell"
    return "better" if difference > 0 else "worse"


def standard_error(first: Scores, second: Scores, seeds: SeedVariance) -> float:
    """Standard error of the difference of two methods' mean scores, over records and seeds, as in `compare`."""
    return math.sqrt(sum(part for part, _ in _variances(first, second, seeds)))


def _variances(first: Scores, second: Scores, seeds: SeedVariance) -> list[tuple[float, int]]:
    """The parts of the variance of the difference, each with its degrees of freedom."""
    over_records = [_paired(first.by_record, second.by_record)] if _is_paired(first, second) else []
    over_records = over_records or [_binomial(first), _binomial(second)]
    over_seeds = _over_seeds(first, seeds) + _over_seeds(second, seeds)
    return [*over_records, (over_seeds, max(1, seeds.freedom))]


def _is_paired(first: Scores, second: Scores) -> bool:
    """Whether the scores of all records are kept for both."""
    return bool(first.by_record) and len(first.by_record) == len(second.by_record)


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[float, int]:
    """Variance of the mean paired difference over the records, and its degrees of freedom."""
    differences = np.append(np.subtract(first, second), [1.0, -1.0])
    return float(np.var(differences)) / len(differences), len(differences) - 1


def _binomial(scores: Scores) -> tuple[float, int]:
    """Binomial variance of a mean score, and its degrees of freedom."""
    records = scores.records + 2
    mean = (scores.mean * scores.records + 1) / records
    return mean * (1 - mean) / records, records - 1


def _over_seeds(scores: Scores, seeds: SeedVariance) -> float:
    """Variance of the mean over the seeds."""
    if scores.seedless:
        return 0.0
    return max(scores.seed_variance, seeds.value) / len(scores.by_seed)


def _quantile(level: float, freedom: float) -> float:
    """Quantile of Student's t that is exceeded with probability `level`."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, level))
