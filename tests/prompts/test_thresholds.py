"""Decision thresholds: a wrong one gives every text the wrong label while the probabilities are right."""

from itertools import product

import numpy as np
import pytest

from pipeline.prompts import thresholds

RNG = np.random.default_rng(1)


def noisy(n: int, shares: list[float], separation: float) -> tuple[thresholds.Floats, thresholds.Indices]:
    """Probabilities of a classifier that leans towards the true label, and the labels."""
    targets_N = RNG.choice(len(shares), n, p=shares)
    scores_NC = RNG.normal(size=(n, len(shares))) + np.log(shares)
    scores_NC[np.arange(n), targets_N] += separation
    exp_NC = np.exp(scores_NC)
    return exp_NC / exp_NC.sum(1, keepdims=True), targets_N


def test_answered_is_the_argmax_without_thresholds_and_with_equal_ones() -> None:
    p_NC, _ = noisy(50, [0.5, 0.3, 0.2], 1.0)
    assert thresholds.answered(p_NC, None).tolist() == p_NC.argmax(1).tolist()
    assert thresholds.answered(p_NC, [1 / 3] * 3).tolist() == p_NC.argmax(1).tolist()


def test_answered_with_two_labels_compares_the_probability_with_the_threshold() -> None:
    p_NC, _ = noisy(200, [0.8, 0.2], 1.0)
    answered = thresholds.answered(p_NC, [0.7, 0.3])
    assert answered.tolist() == (p_NC[:, 1] >= 0.3).astype(int).tolist()


def test_macro_f1_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    for n_labels in (2, 3, 5):
        true, guess = RNG.integers(0, n_labels, 30), RNG.integers(0, n_labels - 1, 30)
        expected = f1_score(true, guess, average="macro", labels=range(n_labels), zero_division=0)
        assert thresholds.macro_f1(true, guess, n_labels) == pytest.approx(expected)


@pytest.mark.parametrize("by", ["f1", "cost"])
def test_for_one_label_finds_the_best_threshold_of_two_labels(by: str) -> None:
    """Against every threshold on a fine grid."""
    p_NC, targets_N = noisy(300, [0.9, 0.1], 1.5)
    costs_CC = thresholds.cost_matrix({"ham": {"spam": 1.0}, "spam": {"ham": 8.0}}, ["ham", "spam"])

    def objective(answers_N: thresholds.Indices) -> float:
        if by == "cost":
            return -thresholds.mean_cost(targets_N, answers_N, costs_CC)
        return thresholds.macro_f1(targets_N, answers_N, 2)

    chosen = thresholds.for_one_label(p_NC, objective)
    assert sum(chosen) == pytest.approx(1)
    grid = [objective((p_NC[:, 1] >= t).astype(int)) for t in np.linspace(0.001, 0.999, 2000)]
    value = objective(thresholds.answered(p_NC, chosen))
    assert value == pytest.approx(max(grid), abs=1e-3 if by == "f1" else 2e-2)
    assert value > objective(thresholds.answered(p_NC, None))  # the plain argmax is worse on rare labels


def test_for_one_label_never_ends_below_the_argmax_with_three_labels() -> None:
    p_NC, targets_N = noisy(200, [0.8, 0.15, 0.05], 1.2)

    def objective(answers_N: thresholds.Indices) -> float:
        return thresholds.macro_f1(targets_N, answers_N, 3)

    chosen = thresholds.for_one_label(p_NC, objective)
    best = max(
        objective(thresholds.answered(p_NC, list(tried))) for tried in product((0.05, 0.1, 0.2, 0.4, 0.8), repeat=3)
    )
    assert objective(thresholds.answered(p_NC, chosen)) >= max(best - 0.01, objective(p_NC.argmax(1)))
    assert thresholds.for_one_label(p_NC, objective) == chosen


def test_for_one_label_keeps_the_argmax_when_nothing_is_better() -> None:
    p_NC = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert (
        thresholds.for_one_label(p_NC, lambda answers: thresholds.macro_f1(np.array([0, 1]), answers, 2)) == [0.5] * 2
    )


def test_for_several_labels_finds_the_best_f1_of_each_label() -> None:
    from sklearn.metrics import f1_score

    p_NC = RNG.random((200, 2))
    targets_NC = (RNG.random((200, 2)) < p_NC * np.array([0.9, 0.2])).astype(float)
    for label, threshold in enumerate(thresholds.for_several_labels(p_NC, targets_NC)):
        grid = [f1_score(targets_NC[:, label], p_NC[:, label] >= t, zero_division=0) for t in np.linspace(0, 1, 400)]
        assert f1_score(targets_NC[:, label], p_NC[:, label] >= threshold) == pytest.approx(max(grid), abs=5e-3)


def test_for_several_labels_keeps_one_half_for_a_label_that_no_record_has() -> None:
    assert thresholds.for_several_labels(np.array([[0.2], [0.9]]), np.zeros((2, 1))) == [0.5]
