"""Paired comparisons: few false findings between equal models, and the detectable difference is detected."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from pipeline import comparison, outcomes
from pipeline.comparison import compare, sign_test
from pipeline.errors import UserError

# A simulation of n comparisons may exceed its rate by two standard errors.
REPEATS = 1000
MOST_FALSE = 0.05 + 2 * (0.05 * 0.95 / REPEATS) ** 0.5


def table(values: np.ndarray, clusters: np.ndarray | None = None, metric: str = "accuracy") -> pa.Table:
    rows = [{"id": f"r{i}"} for i in range(len(values))]
    groups = None if clusters is None else [f"c{cluster}" for cluster in clusters]
    return outcomes.table({"m": [outcomes.plain(outcomes.Outcomes(metric, rows, values.tolist(), groups))]})


def right(
    generator: np.random.Generator, n: int, discordant: float, gain: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two models right on 90 % of n records, which disagree on a share of them; the first is better by `gain`."""
    drawn = generator.random(n)
    both = (generator.random(n) < 0.9).astype(float)
    first, second = both.copy(), both.copy()
    won, lost = drawn < (discordant + gain) / 2, (drawn >= (discordant + gain) / 2) & (drawn < discordant)
    first[won], second[won], first[lost], second[lost] = 1, 0, 0, 1
    return first, second


def test_compare_finds_a_difference_between_equal_models_in_at_most_a_twentieth() -> None:
    """A/A: right and wrong answers, errors of clustered records, and skewed losses; better and worse together."""
    for kind in ("right", "clustered", "skewed"):
        found = 0
        for repeat in range(REPEATS):
            generator = np.random.default_rng(repeat)
            clusters = None
            if kind == "right":
                first, second = right(generator, 397, 0.04)
            else:
                clusters = np.repeat(np.arange(20), 5) if kind == "clustered" else np.arange(60)
                shape = (2, clusters.max() + 1)
                shared = generator.normal(size=shape) if kind == "clustered" else generator.exponential(size=shape) ** 2
                first, second = shared[:, clusters] + 0.1 * generator.normal(size=(2, len(clusters)))
            (one,) = compare(table(first, clusters), table(second, clusters))
            found += one.verdict != "cannot tell"
        assert found / REPEATS <= MOST_FALSE, kind


def test_compare_without_clusters_would_find_too_much_on_clustered_records() -> None:
    """The same A/A world with every record a cluster of its own: the reason why clusters count."""
    found = 0
    for repeat in range(200):
        generator = np.random.default_rng(repeat)
        clusters = np.repeat(np.arange(20), 5)
        first, second = generator.normal(size=(2, 20))[:, clusters] + 0.1 * generator.normal(size=(2, 100))
        found += compare(table(first), table(second))[0].verdict != "cannot tell"
    assert found / 200 > 0.2


@pytest.mark.parametrize(("n", "discordant"), [(397, 0.04), (397, 0.15), (2000, 0.1)])
def test_compare_finds_the_detectable_difference_in_four_fifths(n: int, discordant: float) -> None:
    worlds = [right(np.random.default_rng(seed), n, discordant) for seed in range(20)]
    detectable = float(np.mean([compare(table(a), table(b))[0].detectable for a, b in worlds]))
    if n == 397 and discordant == 0.04:
        assert 0.02 < detectable < 0.045  # 2.8 points by the issue's own formula
    found = 0
    for repeat in range(400):
        generator = np.random.default_rng(repeat)
        first, second = right(generator, n, max(discordant, detectable), detectable)
        (one,) = compare(table(first), table(second))
        assert one.verdict != "worse"
        found += one.verdict == "better"
    assert found / 400 >= 0.8 - 2 * (0.8 * 0.2 / 400) ** 0.5


def test_compare_shares_the_error_rate_among_metrics() -> None:
    """Holm: a p-value of 0.03 is a finding alone, and none among three metrics."""
    first, second = np.zeros(200), np.zeros(200)
    first[:16], second[16:21] = 1, 1  # 16 won, 5 lost: p = 0.027
    plain = outcomes.plain
    three = [[outcomes.Outcomes(name, [{"id": str(i)} for i in range(200)], v) for name in ("a", "b", "c")]
             for v in (first.tolist(), second.tolist())]  # fmt: skip
    ours, theirs = (outcomes.table({"m": [plain(one) for one in several]}) for several in three)
    assert [one.verdict for one in compare(ours, theirs, ["a"])] == ["better"]
    assert [one.verdict for one in compare(ours, theirs)] == ["cannot tell"] * 3


def test_compare_turns_the_verdict_where_lower_is_better() -> None:
    low, high = np.linspace(1, 2, 50), np.linspace(2, 3, 50)
    assert compare(table(low, metric="class_loss_nats"), table(high, metric="class_loss_nats"))[0].verdict == "better"
    assert compare(table(low), table(high))[0].verdict == "worse"


def test_compare_cannot_tell_equal_answers_and_still_states_an_uncertainty() -> None:
    (one,) = compare(table(np.ones(50)), table(np.ones(50)))
    assert (one.verdict, one.difference, one.p_value) == ("cannot tell", 0.0, 1.0)
    assert one.low < 0 < one.high
    assert one.detectable > 0.02


def test_compare_refuses_other_records() -> None:
    with pytest.raises(UserError, match="different records"):
        compare(table(np.ones(5)), table(np.ones(6)), ["accuracy"])
    assert compare(table(np.ones(5)), table(np.ones(6))) == []
    with pytest.raises(UserError, match="no value by record"):
        compare(table(np.ones(5)), table(np.ones(5)), ["f1"])


def test_sign_test_is_mcnemars_for_right_and_wrong_and_near_it_otherwise() -> None:
    sums = np.array([1.0] * 16 + [-1.0] * 5 + [0.0] * 100)
    exact = binomtest(16, 21).pvalue
    assert sign_test(sums, 1) == pytest.approx(exact)
    assert sign_test(np.append(sums, [1e-9, -1e-9]), 1) == pytest.approx(exact, abs=0.01)
    assert comparison.sign_test(np.zeros(3), 1) == 1.0


def test_compare_gives_small_steady_differences_an_interval_in_their_own_unit() -> None:
    """Lost otherwise: bits and nats get the uncertainty of a wrong answer, and no margin can hold."""
    base = np.random.default_rng(1).normal(1.0, 0.3, 100)
    worse = base + np.random.default_rng(2).normal(0.01, 0.005, 100)
    (one,) = compare(table(worse, metric="document_bits_per_byte"), table(base, metric="document_bits_per_byte"))
    assert one.verdict == "worse"
    assert 0.005 < one.low < one.difference < one.high < 0.015
    assert one.detectable < 0.01


def test_compare_slices_finds_a_worse_slice_among_hundreds() -> None:
    """Lost otherwise: the smallest p-value that the drawn signs can show is above what Holm asks of the first."""
    n, slices = 6000, 300
    rows = [{"id": str(i), **{f"c{k}": str((i + k * (i // 20)) % 20) for k in range(slices // 20)}} for i in range(n)]
    base = np.random.default_rng(1).normal(1.0, 0.1, n)
    worse = base + np.where([row["c0"] == "3" for row in rows], 0.5, 0.0)
    ours, theirs = (
        outcomes.table({"m": [outcomes.plain(outcomes.Outcomes("x_nats", rows, v.tolist()))]}) for v in (worse, base)
    )
    compared = comparison.compare_slices(ours, theirs, ["x_nats"])
    assert sum(dimension.startswith("c") for dimension, *_ in compared) == slices
    assert ["c0", "3"] in [name for *name, one in compared if one.verdict == "worse"]
