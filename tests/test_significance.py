"""Tests of differences: equal methods must seldom look different, planted differences must be found."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest

from pipeline.significance import (
    ERROR_RATE,
    Scores,
    SeedVariance,
    compare,
    mcnemar,
    mcnemar_verdict,
    median_interval,
    wilson,
)

SIMULATIONS = 1000
TOLERATED = ERROR_RATE + 3 * (ERROR_RATE * (1 - ERROR_RATE) / SIMULATIONS) ** 0.5
"""The rate plus three standard errors of the simulation."""


@pytest.mark.parametrize("only_first", [0, 1, 4, 9, 50, 500])
@pytest.mark.parametrize("only_second", [0, 3, 40, 520])
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int) -> None:
    records = only_first + only_second
    expected = binomtest(only_first, records, alternative="greater").pvalue if records else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("only_first", "only_second", "verdict"),
    [(6, 0, "better"), (5, 0, "cannot tell"), (0, 6, "worse"), (0, 0, "cannot tell"), (30, 28, "cannot tell")],
)
def test_mcnemar_verdict_needs_six_records_of_six(only_first: int, only_second: int, verdict: str) -> None:
    assert mcnemar_verdict(only_first, only_second) == verdict


def test_mcnemar_verdict_is_seldom_wrong_for_equal_classifiers() -> None:
    rng = np.random.default_rng(1)
    right = rng.random((2, SIMULATIONS, 53)) < 0.9
    only_first, only_second = (right[0] & ~right[1]).sum(1), (right[1] & ~right[0]).sum(1)
    wrong = [mcnemar_verdict(int(b), int(c)) != "cannot tell" for b, c in zip(only_first, only_second, strict=True)]
    assert np.mean(wrong) <= TOLERATED


@pytest.mark.parametrize(
    ("accuracy", "records", "low", "high"), [(0.9, 10, 0.5958, 0.9821), (0.0, 20, 0.0, 0.1611), (1.0, 20, 0.8389, 1.0)]
)
def test_wilson_gives_the_published_interval(accuracy: float, records: int, low: float, high: float) -> None:
    """Against statsmodels.stats.proportion.proportion_confint(..., method="wilson")."""
    assert wilson(accuracy, records) == pytest.approx((low, high), abs=1e-4)


def test_wilson_is_everything_without_records() -> None:
    assert wilson(0.5, 0) == (0.0, 1.0)


def world(
    rng: np.random.Generator, accuracies: list[float], records: int, seeds: int, of_seeds: float, paired: bool
) -> list[Scores]:
    """Scores of methods on the same records, some of which are hard for all, with a random part of each seed."""
    hardness = rng.normal(size=records)
    methods = []
    for accuracy in accuracies:
        noise = rng.normal(size=(seeds, records)) + of_seeds * rng.normal(size=(seeds, 1))
        bound = NormalDist().inv_cdf(accuracy) * (2 + of_seeds**2) ** 0.5
        right = (hardness + noise) < bound
        by_record = tuple(right.mean(0).tolist()) if paired else ()
        methods.append(Scores(tuple(right.mean(1).tolist()), records, by_record))
    return methods


def found(methods: list[Scores]) -> bool:
    """Whether the best method is called better than any other, as the advice does it."""
    seeds, pairs = SeedVariance.pooled(methods), len(methods) * (len(methods) - 1) // 2
    best = max(methods, key=lambda method: method.mean)
    return any(compare(best, other, seeds, pairs) == "better" for other in methods if other is not best)


@pytest.mark.parametrize(
    ("methods", "records", "seeds", "of_seeds", "paired"),
    [
        (2, 53, 1, 0.0, True),
        (2, 53, 2, 0.0, False),
        (2, 53, 2, 0.4, True),
        (2, 300, 2, 0.4, True),
        (2, 300, 1, 0.0, False),
        (6, 53, 2, 0.0, True),
        (6, 200, 2, 0.4, True),
    ],
)
def test_compare_seldom_calls_the_best_of_equal_methods_better(
    methods: int, records: int, seeds: int, of_seeds: float, paired: bool
) -> None:
    """Lost otherwise: the luckiest of equal methods would be recommended as the best."""
    rng = np.random.default_rng(2)
    wrong = [found(world(rng, [0.9] * methods, records, seeds, of_seeds, paired)) for _ in range(SIMULATIONS)]
    assert np.mean(wrong) <= TOLERATED


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("accuracies", "records"), [([0.95, 0.65], 100), ([0.93, 0.93, 0.93, 0.80], 600)])
def test_compare_finds_a_planted_difference(accuracies: list[float], records: int, paired: bool) -> None:
    rng = np.random.default_rng(3)
    share = np.mean([found(world(rng, accuracies, records, 2, 0.0, paired)) for _ in range(100)])
    assert share > 0.9


def test_compare_finds_more_when_scores_by_record_are_kept() -> None:
    """Two methods that fail on the same records differ clearly by the few records that only one gets right."""
    first, second = (1.0,) * 95 + (0.0,) * 5, (1.0,) * 83 + (0.0,) * 17
    halves = (0.5,) * 12  # of a third method that is right on them with one of two seeds
    none = SeedVariance(0.0, 1)
    assert compare(Scores((0.95,), 100, first), Scores((0.83,), 100, second), none, 1) == "better"
    assert compare(Scores((0.95,), 100), Scores((0.83,), 100), none, 10) == "cannot tell"
    assert compare(Scores((0.95,), 100, first), Scores((0.83,), 100, second), none, 10) == "better"
    third = Scores((0.89,), 100, first[:83] + halves + first[95:])
    assert compare(third, Scores((0.83,), 100, second), none, 1) == "better"


def test_compare_counts_the_spread_over_seeds() -> None:
    """One seed of ten points more is no method of ten points more."""
    records = 100_000
    steady = [Scores((0.90, 0.90, 0.90), records), Scores((0.85, 0.85, 0.85), records)]
    spread = [Scores((0.90, 0.90, 0.90), records), Scores((0.90, 0.75, 0.90), records)]
    assert compare(*steady, SeedVariance.pooled(steady), 1) == "better"
    assert compare(*spread, SeedVariance.pooled(spread), 1) == "cannot tell"
    lucky = [Scores((0.90, 0.90), records), Scores((0.85, 0.85), records), Scores((0.95, 0.55), records)]
    assert compare(lucky[0], lucky[1], SeedVariance.pooled(lucky), 1) == "cannot tell"  # two seeds agree by chance


def test_compare_is_mcnemars_test_for_one_seed_each() -> None:
    """Lost otherwise: the advice and a model's gate could differ on the same model."""
    first = (1.0,) * 53
    for lost, verdict in ((6, "better"), (5, "cannot tell")):
        second = (0.0,) * lost + (1.0,) * (53 - lost)
        methods = [Scores((1.0,), 53, first), Scores((1 - lost / 53,), 53, second)]
        assert compare(*methods, SeedVariance.pooled(methods), 1) == verdict
        assert compare(*methods, SeedVariance.pooled(methods), 2) == "cannot tell"  # 2 comparisons share the rate


def test_compare_cannot_tell_without_the_number_of_records() -> None:
    methods = [Scores((1.0, 1.0), 0), Scores((0.0, 0.0), 0)]
    assert compare(*methods, SeedVariance.pooled(methods), 1) == "cannot tell"


@pytest.mark.parametrize(
    ("count", "first", "last"), [(1, 0, 0), (5, 0, 4), (6, 0, 5), (9, 1, 7), (25, 7, 17), (100, 39, 60)]
)
def test_median_interval_takes_the_ranks_of_the_tables(count: int, first: int, last: int) -> None:
    """Ranks, from 0, of the usual tables for 95 %: 1 and 6 of 6, 2 and 8 of 9, 8 and 18 of 25, 40 and 61 of 100."""
    assert median_interval(list(range(count))[::-1]) == (first, last)


def test_median_interval_holds_the_median_in_95_of_100_repetitions() -> None:
    rng = np.random.default_rng(7)
    intervals = [median_interval(rng.exponential(size=31).tolist()) for _ in range(SIMULATIONS)]
    assert np.mean([not low <= np.log(2) <= high for low, high in intervals]) <= TOLERATED
