"""Reward against KL: best-of-n, the best possible at a KL, and the curve of over-optimisation, beside exact values."""

import itertools
import math

import numpy as np
import pytest

from pipeline import frontier


def test_best_of_is_the_mean_over_all_subsets_when_scores_tie() -> None:
    """Against enumeration; the judge's scores tie, and its order is not that of the rewards."""
    generator = np.random.default_rng(3)
    scores, rewards = generator.integers(0, 3, (4, 7)), generator.random((4, 7))
    for n in (1, 2, 4, 7):
        for row in range(4):
            picked = []
            for subset in itertools.combinations(range(7), n):
                best = max(scores[row][list(subset)])
                picked.append(np.mean([rewards[row][i] for i in subset if scores[row][i] == best]))
            assert frontier.best_of(n, scores, rewards)[row] == pytest.approx(np.mean(picked), abs=1e-12)


def test_best_of_refuses_more_samples_than_there_are() -> None:
    with pytest.raises(ValueError, match="expected 1 <= n <= samples"):
        frontier.best_of(5, [[0.0, 1.0]], [[0.0, 1.0]])


def test_kl_of_best_bounds_the_exact_kl_and_is_its_limit_for_many_answers() -> None:
    """Against the exact distribution of best-of-n over 2,000 answers of equal probability, and over few ones."""
    assert [round(frontier.kl_of_best(n), 2) for n in (1, 4, 16, 64)] == [0.0, 0.64, 1.84, 3.17]
    for answers, close in ((2000, 0.01), (5, 3.0)):
        for n in (4, 16, 64):
            ranks = np.arange(1, answers + 1) / answers
            chances = np.diff(np.append(0.0, ranks**n))
            kept = chances > 0
            kl = float((chances[kept] * np.log(chances[kept] * answers)).sum())
            assert kl <= frontier.kl_of_best(n) <= kl + close


def test_best_at_equals_the_exact_tilted_distribution() -> None:
    """Three answers with known probabilities, drawn in exactly these shares, so that the estimate is the truth."""
    probabilities, rewards = np.array([0.5, 0.3, 0.2]), np.array([0.0, 0.4, 1.0])
    samples = np.repeat(rewards, [50, 30, 20])[None]
    for beta in (0.1, 0.3, 1.0):
        q = probabilities * np.exp(rewards / beta)
        q /= q.sum()
        kl = float((q * np.log(q / probabilities)).sum())
        best = frontier.best_at(kl, samples)
        assert best.reward == pytest.approx(float(q @ rewards), abs=1e-6)
        assert best.beta == pytest.approx(beta, rel=1e-4)
        assert not best.saturated
    most = frontier.best_at(5.0, samples)
    assert (most.saturated, round(most.reward, 6)) == (True, 1.0)
    assert most.kl_nats == pytest.approx(math.log(5), abs=1e-6)
    assert most.effective == pytest.approx(20)


def test_best_at_shares_one_tilt_over_prompts_and_is_not_below_best_of() -> None:
    """Lost otherwise: the KL is spent on prompts whose answers are all alike."""
    rewards = np.stack([np.full(64, 0.5), np.linspace(0, 1, 64)])
    best = frontier.best_at(0.5, rewards)
    assert best.reward > 0.5 + 0.5 * (frontier.best_at(0.5, rewards[1:]).reward - 0.5)
    for n in (4, 16):
        mean = float(frontier.best_of(n, rewards, rewards).mean())
        assert frontier.best_at(frontier.kl_of_best(n), rewards).reward >= mean
    assert frontier.best_at(1.0, np.ones((2, 5))) == frontier.Best(1.0, 0.0, math.inf, 5.0, saturated=False)


def test_fit_finds_the_planted_turning_point_and_none_in_a_rising_curve() -> None:
    generator = np.random.default_rng(1)
    kl = np.array([0.0, 0.2, 0.5, 1, 2, 4, 8, 16, 32])
    noise = 0.05 * generator.standard_normal((9, 150))
    distance = np.sqrt(kl)[1:]
    turned = np.append(0.0, distance * (0.25 - 0.15 * np.log(distance)))[:, None] + noise
    curve = frontier.fit(kl.tolist(), turned)
    assert (curve.alpha, curve.beta) == (pytest.approx(0.25, abs=0.02), pytest.approx(0.15, abs=0.02))
    assert curve.turns
    assert curve.turning == pytest.approx(math.exp(0.25 / 0.15 - 1), rel=0.1)
    assert 0 < curve.fall_low < curve.fall
    assert curve.fall == pytest.approx(turned.mean(axis=1).max() - turned.mean(axis=1)[-1], abs=0.03)
    # a gain that levels off: the curve has a peak, the measured gain does not fall
    rising = frontier.fit(kl.tolist(), (0.3 * (1 - np.exp(-np.sqrt(kl))))[:, None] + noise)
    assert rising.turning is not None
    assert not rising.turns
    falling = frontier.fit(kl.tolist(), (-0.05 * np.sqrt(kl))[:, None] + noise)
    assert (falling.turning, falling.turns) == (0.0, True)
    with pytest.raises(ValueError, match="2 checkpoints with a KL above 0 and 150 prompts"):
        frontier.fit([0.0, 1.0, 2.0], noise[:3])


def test_rules_choose_a_checkpoint_without_the_truth() -> None:
    assert frontier.within_budget([0.0, 2.0, 9.0, 11.0, 8.0], 10.0) == 2
    assert frontier.within_budget([0.0, 12.0], 10.0) == 0
    assert frontier.by_judge([0.1, 0.9, 0.9, 0.2]) == 1


def test_fit_finds_a_turning_point_in_noise_alone_no_more_often_than_its_error_rate() -> None:
    """Lost otherwise: the best of nine equal checkpoints is above the last, and every run seems over-optimised."""
    kl = [0.0, 0.2, 0.5, 1, 2, 4, 8, 16, 32]
    generator = np.random.default_rng(4)
    found = sum(frontier.fit(kl, generator.standard_normal((9, 60))).turns for _ in range(300))
    assert found / 300 <= 0.025 + 2 * math.sqrt(0.025 * 0.975 / 300)
