"""Drift: the level is held where separate tests cry wolf, each kind of drift is found; scipy is the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipeline.watching import drift, spending
from pipeline.watching.observations import Observation
from tests.watching.synthetic import drawn

LEVEL = spending.level(1)


def index(reference: list[Observation], window: list[Observation], name: str) -> float:
    """Population stability index over the reference's tenths."""
    old, new = (np.array([float(getattr(one, name)) for one in part]) for part in (reference, window))
    edges = np.unique(np.quantile(old, np.linspace(0, 1, 11)))[1:-1]
    shares = [np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) / len(part) for part in (old, new)]
    before, after = (np.maximum(share, 1e-4) for share in shares)
    return float(((after - before) * np.log(after / before)).sum())


def test_compare_holds_its_level_where_separate_tests_and_psi_cry_wolf() -> None:
    generator = np.random.default_rng(11)
    reference = drawn(generator, 1000)
    names = ("characters", "words", "fertility", "confidence", "answer_nats", "answer_tokens", "distance")
    naive = indices = ours = 0
    for _ in range(60):
        window = drawn(generator, 100)
        columns = [[[getattr(one, name) for one in part] for part in (reference, window)] for name in names]
        naive += any(stats.ks_2samp(*column).pvalue < 0.05 for column in columns)
        indices += any(index(reference, window, name) > 0.1 for name in names)
        ours += drift.compare(reference, window, 0.05, generator).drifted
    assert naive >= 12
    assert indices >= 12
    assert ours <= 7  # 60 looks at 5 %: at most 7 in 99 of 100 repetitions


def test_months_without_drift_have_seldom_a_warning_when_alpha_is_spent_over_looks() -> None:
    generator = np.random.default_rng(12)
    alarmed = 0
    for _ in range(12):
        reference = drawn(generator, 150)
        alarmed += any(
            drift.compare(reference, drawn(generator, 80), spending.level(look), generator).drifted
            for look in range(1, spending.LOOKS + 1)
        )
    assert alarmed <= 2  # 12 months at 5 %: at most 2 in 98 of 100 repetitions


@pytest.mark.parametrize(
    ("change", "name"),
    [({"longer": 1.3}, "characters"), ({"unknown": 0.15}, "unknown_words"), ({"spam": 0.7}, "label")],
)
def test_compare_names_the_statistic_when_one_drifts(change: dict[str, float], name: str) -> None:
    generator = np.random.default_rng(13)
    found = drift.compare(drawn(generator, 500), drawn(generator, 400, **change), LEVEL, generator)
    drifted = {one.name for one in found.statistics if one.drifted}
    assert name in drifted
    assert drifted <= {name, "words"}


def test_compare_has_p_values_of_scipy_when_one_number_is_compared() -> None:
    generator = np.random.default_rng(14)
    reference, window = drawn(generator, 120), drawn(generator, 90, longer=1.12)
    found = drift.rise(reference, window, 0.001, generator, "characters")
    lengths = [[one.characters for one in part] for part in (window, reference)]
    expected = stats.mannwhitneyu(*lengths, alternative="greater").pvalue
    assert found.p_value == pytest.approx(expected, rel=0.4)
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0])
    assert drift.midranks(values).tolist() == stats.rankdata(values).tolist()


def test_compare_leaves_out_a_number_when_few_requests_have_it() -> None:
    generator = np.random.default_rng(15)
    reference, window = drawn(generator, 100), drawn(generator, 100)
    few = [replace(one, distance=None) for one in window[:80]] + window[80:]
    assert "distance" not in {one.name for one in drift.compare(reference, few, LEVEL, generator).statistics}
    some = [replace(one, distance=None) for one in window[:40]] + window[40:]
    found = drift.compare(reference, some, LEVEL, generator)
    (statistic,) = [one for one in found.statistics if one.name == "distance"]
    assert statistic.observations == 60
    assert not found.drifted
    shifted = [replace(one, distance=None if one.distance is None else one.distance + 0.3) for one in some]
    found = drift.compare(reference, shifted, LEVEL, generator)
    assert [one.name for one in found.statistics if one.drifted] == ["distance"]


def test_compare_finds_nothing_when_no_statistic_can_be_compared() -> None:
    found = drift.compare([], [], LEVEL, np.random.default_rng(1))
    assert (found.statistics, found.p_value, found.drifted) == ((), 1.0, False)


def test_level_sums_to_at_most_the_rate_when_looks_do_not_end() -> None:
    parts = [spending.level(look) for look in range(1, 5000)]
    assert sum(parts) <= spending.RATE
    assert sum(parts) > 0.99 * spending.RATE
    assert len(set(parts[: spending.LOOKS])) == 1
