"""Decision thresholds of a classifier: from probabilities to labels, and their choice on validation records.

One label a text: the answer is the label whose probability is largest relative to its threshold, argmax_c p_c / t_c;
with two labels whose thresholds sum to 1 that is `p >= t`. Equal thresholds give the plain argmax. Several labels a
text: each label whose probability reaches its own threshold.

The thresholds maximise macro-averaged F1 (Lipton et al. 2014, "Optimal thresholding of classifiers to maximize F1") or
minimise the mean cost of the answers (Elkan 2001, "The foundations of cost-sensitive learning"), by the exact optimum
in one threshold at a time over the values at which an answer changes. Everything is deterministic.

Shapes: N records, C labels. No torch.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Objective = Callable[[Indices], float]
"""Answers of N records, as class indices -> the value to maximise."""

LOWEST = 1e-6
"""Smallest threshold: below it a label would always be answered."""
_CANDIDATES = 256  # values of one threshold that are tried; of more, evenly spaced ones
_SWEEPS = 5


def answered(probabilities_NC: Floats, thresholds_C: Sequence[float] | None) -> Indices:
    """The class index of every record; without thresholds the argmax."""
    if thresholds_C is None:
        return np.asarray(probabilities_NC.argmax(1))
    return np.asarray((probabilities_NC / np.maximum(thresholds_C, LOWEST)).argmax(1))


def macro_f1(targets_N: Indices, answers_N: Indices, n_labels: int) -> float:
    """Mean F1 of the labels, 0 for a label without a correct answer (scikit-learn's `zero_division=0`)."""
    confusion_CC = np.bincount(targets_N * n_labels + answers_N, minlength=n_labels**2).reshape(n_labels, n_labels)
    sums_C = confusion_CC.sum(0) + confusion_CC.sum(1)
    return float(np.divide(2 * confusion_CC.diagonal(), sums_C, out=np.zeros(n_labels), where=sums_C > 0).mean())


def cost_matrix(costs: Mapping[str, Mapping[str, float]], labels: Sequence[str]) -> Floats:
    """costs_CC: row of the true label, column of the answered one."""
    return np.array([[costs.get(true, {}).get(label, 0.0) for label in labels] for true in labels])


def mean_cost(targets_N: Indices, answers_N: Indices, costs_CC: Floats) -> float:
    """Mean cost of the answers; 0 of no record."""
    return float(costs_CC[targets_N, answers_N].mean()) if len(targets_N) else 0.0


def for_one_label(probabilities_NC: Floats, objective: Objective) -> list[float]:
    """The thresholds of the labels, sum 1, that maximise an objective of the answers; equal ones where none is better.

    One threshold at a time takes its best value with the others fixed, until no change improves the objective.
    """
    n_labels = probabilities_NC.shape[1]
    thresholds_C = np.full(n_labels, 1.0 / n_labels)
    best = objective(answered(probabilities_NC, None))
    for _ in range(_SWEEPS):
        before = best
        for label in range(n_labels):
            others_N = np.delete(probabilities_NC / thresholds_C, label, 1).max(1)
            # the answer of a record becomes this label where the threshold falls below p / (largest of the others)
            switches = np.unique(probabilities_NC[:, label] / np.maximum(others_N, 1e-12))
            for candidate in _between(switches, float(thresholds_C[label])):
                tried_C = thresholds_C.copy()
                tried_C[label] = candidate
                if (value := objective(answered(probabilities_NC, tried_C.tolist()))) > best:
                    best, thresholds_C = value, tried_C
        if best == before:
            break
    shares_C: list[float] = np.clip(thresholds_C / thresholds_C.sum(), LOWEST, 1.0).tolist()
    return shares_C


def for_several_labels(probabilities_NC: Floats, targets_NC: Floats) -> list[float]:
    """Per label, the threshold with the highest F1 of that label; 0.5 where none is better."""
    chosen = []
    for p_N, target_N in zip(probabilities_NC.T, targets_NC.T > 0, strict=True):
        best, threshold = _f1(target_N, p_N >= 0.5), 0.5
        for candidate in _between(np.unique(p_N), 0.5):
            if (value := _f1(target_N, p_N >= candidate)) > best:
                best, threshold = value, candidate
        chosen.append(float(np.clip(threshold, LOWEST, 1.0)))
    return chosen


def _f1(target_N: npt.NDArray[np.bool_], answer_N: npt.NDArray[np.bool_]) -> float:
    total = int(target_N.sum() + answer_N.sum())
    return 2 * int((target_N & answer_N).sum()) / total if total else 0.0


def _between(values: Floats, present: float) -> list[float]:
    """Midpoints of neighbouring values and one value beyond either end, those nearest to the present one first."""
    if not len(values):
        return []
    middle = (values[1:] + values[:-1]) / 2
    candidates = np.concatenate([[max(values[0] / 2, LOWEST)], middle, [values[-1] * 2]])
    candidates = candidates[candidates > 0]
    if len(candidates) > _CANDIDATES:
        candidates = candidates[np.linspace(0, len(candidates) - 1, _CANDIDATES).round().astype(int)]
    order = np.argsort(np.abs(np.log(candidates / present)), kind="stable")
    ordered: list[float] = candidates[order].tolist()
    return ordered
