"""Reward against KL divergence: the best possible at a KL, best-of-n, and the curve of over-optimisation.

Everything is computed from samples of the reference policy and their rewards, without any training:

- `best_of`: mean reward of the answer that a judge prefers among n samples. It is the mean over all subsets of n out of
  the samples of a prompt, by order statistics, which has no bias and less variance than one draw (as the estimator of
  pass@k by Chen et al. 2021, appendix A). `kl_of_best` is an upper bound of its KL (Beirami et al. 2024, theorem 1);
- `best_at`: the highest mean reward at a mean KL. The policy with it is the reference tilted by its reward,
  q(y) = p(y) exp(u(y) / beta) / Z, with one beta for all prompts (Korbak et al. 2022, section 3);
- `fit`: the curve R(d) = d (alpha - beta ln d) of the square root d of the KL (Gao et al. 2022, equation 2), with the
  place where it turns.

Shapes: P prompts, S samples of a prompt, C checkpoints.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.outcomes import mean_interval
from pipeline.seeds import seed_for

Floats = npt.NDArray[np.float64]
LEAST_CHECKPOINTS = 3
"""With a KL above 0, that a curve is fitted through."""
_LEAST_FALL = 1e-9  # above rounding
_STEEPEST = 1e-6  # of beta: a sharper tilt takes the best samples alone


class Best(NamedTuple):
    """The highest mean reward at a KL, estimated from samples of the reference."""

    reward: float
    kl_nats: float
    """Mean KL of the tilted policy: the budget, or less where the samples end."""
    beta: float
    """Of the tilt, in units of the reward; the smaller, the sharper."""
    effective: float
    """Mean effective sample size of a prompt, 1 / sum of squared weights, out of S: few samples, a rough estimate."""
    saturated: bool
    """Whether the budget is more than S samples can show (at most ln S): the true value is this one or higher."""


class Curve(NamedTuple):
    """A fitted curve of gain against the square root of the KL, and the loss of gain measured after its peak."""

    alpha: float
    beta: float
    turning: float | None
    """Square root of the KL at which the curve is highest: 0 where it only falls, None where it only rises."""
    fall: float
    """Gain at the best checkpoint less that at the last one. The best one is chosen on a third of the prompts
    and measured on the others, so that chance makes no peak."""
    fall_low: float
    """Lower bound of its 95 % interval."""

    @property
    def turns(self) -> bool:
        """Whether a turning point is found: the curve has one, and the measured loss after the peak is above chance.

        The curve alone would find one in every gain that levels off.
        """
        return self.turning is not None and self.fall_low > _LEAST_FALL

    def gain(self, kl_nats: float) -> float:
        """The fitted gain at a KL."""
        return _gain(self.alpha, self.beta, math.sqrt(kl_nats))


def kl_of_best(n: int) -> float:
    """Upper bound of the KL of best-of-n to its reference in nats: ln n - (n - 1) / n, whatever the judge."""
    return math.log(n) - (n - 1) / n


def best_of(n: int, scores_PS: npt.ArrayLike, rewards_PS: npt.ArrayLike) -> Floats:
    """rewards_P: expected reward of the sample with the highest score among n drawn without replacement out of S.

    Samples of one score share their chances, as if a coin decided.

    Raises:
        ValueError: n is below 1 or above S, or the shapes differ.
    """
    scores, rewards = np.asarray(scores_PS, np.float64), np.asarray(rewards_PS, np.float64)
    samples = scores.shape[1]
    if scores.shape != rewards.shape or not 1 <= n <= samples:
        raise ValueError(f"n is {n}, scores {scores.shape}, rewards {rewards.shape}; expected 1 <= n <= samples")
    chances_S = np.array([math.comb(rank, n - 1) / math.comb(samples, n) for rank in range(samples)])
    return np.array([_expected(chances_S, *row) for row in zip(scores, rewards, strict=True)])


def _expected(chances_S: Floats, scores_S: Floats, rewards_S: Floats) -> float:
    """Expected reward of one prompt; `chances_S` of the samples in ascending order of score."""
    order = np.argsort(scores_S, kind="stable")
    _, group_S = np.unique(scores_S[order], return_inverse=True)
    shared_S = (np.bincount(group_S, chances_S) / np.bincount(group_S))[group_S]
    return float(shared_S @ rewards_S[order])


def best_at(budget_nats: float, rewards_PS: npt.ArrayLike) -> Best:
    """The highest mean reward of a policy whose mean KL to the reference is at most the budget.

    Args:
        budget_nats: mean KL over the prompts.
        rewards_PS: rewards of samples of the reference.
    """
    rewards = np.asarray(rewards_PS, np.float64)
    widest = float(np.ptp(rewards, axis=1).max())
    if budget_nats <= 0 or widest == 0:
        return Best(float(rewards.mean()), 0.0, math.inf, float(rewards.shape[1]), saturated=False)
    low, high = math.log(_STEEPEST * widest), math.log(1e6 * widest)  # of ln beta; KL falls as beta rises
    sharpest = _tilted(math.exp(low), rewards)
    if sharpest.kl_nats <= budget_nats:
        return sharpest._replace(saturated=True)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tilted(math.exp(middle), rewards).kl_nats > budget_nats else (low, middle)
    return _tilted(math.exp(high), rewards)


def _tilted(beta: float, rewards_PS: Floats) -> Best:
    """The reference tilted by reward / beta, with weights normalised over the samples of each prompt."""
    logits_PS = (rewards_PS - rewards_PS.max(axis=1, keepdims=True)) / beta
    weights_PS = np.exp(logits_PS)
    weights_PS /= weights_PS.sum(axis=1, keepdims=True)
    samples = rewards_PS.shape[1]
    logs_PS = np.log(np.maximum(weights_PS * samples, np.finfo(np.float64).tiny))
    kl_P = np.maximum(0.0, (weights_PS * logs_PS).sum(axis=1))
    effective_P = 1 / np.square(weights_PS).sum(axis=1)
    return Best(
        float((weights_PS * rewards_PS).sum(axis=1).mean()), float(kl_P.mean()), beta, float(effective_P.mean()),
        saturated=False,
    )  # fmt: skip


def fit(kl_nats_C: Sequence[float], gains_CP: npt.ArrayLike, seed: int = 1) -> Curve:
    """The curve of over-optimisation through the checkpoints of a training, by least squares.

    Args:
        kl_nats_C: KL of each checkpoint to the reference, in nats, in the order of training.
        gains_CP: reward less that of the reference, of each checkpoint on each prompt.
        seed: of the prompts that choose.

    Raises:
        ValueError: fewer than LEAST_CHECKPOINTS with a KL above 0, or fewer than four prompts.
    """
    distance_C = np.sqrt(np.maximum(0.0, np.asarray(kl_nats_C, np.float64)))
    gains = np.asarray(gains_CP, np.float64)
    moved_C = distance_C > 0
    if moved_C.sum() < LEAST_CHECKPOINTS or gains.shape[1] < 4:
        raise ValueError(
            f"{int(moved_C.sum())} checkpoints with a KL above 0 and {gains.shape[1]} prompts, expected 3 and 4 or more"
        )
    alpha, beta = _coefficients(distance_C[moved_C], gains[moved_C].mean(axis=1))
    order_P = np.random.default_rng(seed_for(seed, "frontier")).permutation(gains.shape[1])
    choosing_P, measured_P = np.split(order_P, [gains.shape[1] // 3])
    peak = gains[:, choosing_P].mean(axis=1).argmax()
    fall, low, _ = mean_interval(gains[peak, measured_P] - gains[-1, measured_P])
    return Curve(alpha, beta, _turning(alpha, beta, float(distance_C.max())), fall, low)


def _coefficients(distance_C: Floats, gain_C: Floats) -> tuple[float, float]:
    """alpha and beta by least squares."""
    columns = np.stack([distance_C, -distance_C * np.log(distance_C)], axis=1)
    alpha, beta = np.linalg.lstsq(columns, gain_C, rcond=None)[0]
    return float(alpha), float(beta)


def _gain(alpha: float, beta: float, distance: float) -> float:
    return distance * (alpha - beta * math.log(distance)) if distance > 0 else 0.0


def _turning(alpha: float, beta: float, furthest: float) -> float | None:
    """The distance up to `furthest` at which the curve is highest; None where that is the furthest itself.

    A peak is at exp(alpha / beta - 1) if beta is above 0; a curve that ends below its start has its highest place at 0.
    """
    if beta > 0 and (power := alpha / beta - 1) < math.log(furthest):
        return math.exp(power)
    return 0.0 if _gain(alpha, beta, furthest) < 0 else None


def within_budget(kl_nats_C: Sequence[float], budget_nats: float) -> int:
    """Index of the checkpoint that the rule of a KL budget chooses: the last one before the KL first exceeds it."""
    chosen = 0
    for index, kl in enumerate(kl_nats_C):
        if kl > budget_nats:
            break
        chosen = index
    return chosen


def by_judge(scores_C: Sequence[float]) -> int:
    """Index of the checkpoint with the highest score by a held-out judge; the first of equal ones."""
    return int(np.argmax(np.asarray(scores_C, np.float64)))
