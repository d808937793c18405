"""The scaling law of the loss in parameters and tokens, and the rule for learning rates and batch, with their fits.

The law is that of Hoffmann et al. 2022 (equation 2): L(N, D) = E + A / N^alpha + B / D^beta, fitted as in their
appendix D.2 (Huber loss of the logarithms, many starts). Where the entropy of the documents is known, E is that and
not fitted. N are the parameters that multiply (no embedding table), D the tokens trained on.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.studies.trials import Result

_HUBER = 1e-3  # of the logarithm of the loss, as in their appendix D.2


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, nats per token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: float, d: float) -> float:
        """The loss of `n` parameters after `d` tokens, nats per token."""
        return float(self.E + self.A / n**self.alpha + self.B / d**self.beta)


def fit(results: Sequence[Result]) -> Law:
    """The law fitted to the trials that did not diverge.

    Raises:
        UserError: fewer than three sizes or three numbers of tokens.
    """
    from scipy.optimize import least_squares

    results = [result for result in results if math.isfinite(result.loss_nats)]
    sizes, lengths = len({result.weights for result in results}), len({result.tokens for result in results})
    if sizes < 3 or lengths < 3:
        raise UserError(f"{sizes} sizes, {lengths} numbers of tokens; a law needs three of each (infra/scaling.yaml)")
    n, d, loss = np.array([(r.weights, r.tokens, r.loss_nats) for r in results], dtype=float).T
    known = results[0].known_nats

    def law(x: np.ndarray) -> Law:
        E = known if known is not None else math.exp(x[4])
        return Law(E, *(float(v) for v in np.exp(x[:4])))

    def residuals(x: np.ndarray) -> Any:
        a, b, alpha, beta = np.exp(x[:4])
        floor = known if known is not None else np.exp(x[4])
        with np.errstate(over="ignore"):  # of too large an exponent: its term is zero
            return np.log(floor + a / n**alpha + b / d**beta) - np.log(loss)

    fits = []
    for alpha, beta, share in itertools.product((0.2, 0.4, 0.8), (0.2, 0.4, 0.8), (0.5, 0.8, 0.95)):
        floor = known if known is not None else share * loss.min()
        above = max(1e-3, loss.mean() - floor) / 2
        start = [math.log(above) + alpha * np.log(n).mean(), math.log(above) + beta * np.log(d).mean()]
        start += [math.log(alpha), math.log(beta)] + ([] if known is not None else [math.log(floor)])
        fits.append(least_squares(residuals, start, loss="huber", f_scale=_HUBER, max_nfev=4000))
    return law(min(fits, key=lambda fitted: fitted.cost).x)


def best(points: Iterable[tuple[float, float]]) -> float:
    """The factor at the minimum of a parabola through (log factor, loss), within the range of the factors tried.

    Without a minimum inside, the end of the range that is lower.

    Raises:
        UserError: every trial diverged.
    """
    pairs = sorted((factor, loss) for factor, loss in points if math.isfinite(loss))
    if not pairs:
        raise UserError("every trial of a rate or a batch diverged; lower the learning rates in params.yaml")
    x, y = np.log([factor for factor, _ in pairs]), np.array([loss for _, loss in pairs])
    curve = np.polyfit(x, y, 2) if len(pairs) > 2 else np.zeros(3)
    at = -curve[1] / (2 * curve[0]) if curve[0] > 0 else x[int(y.argmin())]
    if at <= x[0] or at >= x[-1]:  # the factor itself: exp(log(x)) would round it
        return pairs[0][0] if at <= x[0] else pairs[-1][0]
    return math.exp(at)


@dataclass(frozen=True)
class ScalingRule:
    """Learning rates and batch as functions of size and tokens, as factors of the values in params.yaml."""

    rate_at: tuple[tuple[float, float], ...]
    """(parameters, best factor of the learning rates) of each size."""
    batch: float
    """Best factor of the batch at `tokens`."""
    tokens: float
    tried: tuple[float, float]
    """The lowest and the highest factor of the rates among the trials."""
    batches: tuple[float, float]
    """The lowest and the highest factor of the batch among the trials."""

    def rate(self, n: float, batch: float = 1.0) -> float:
        """The factor of the rates: a power law in the size, times the root of the batch's factor (Malladi et al. 2022,
        for optimizers that normalise their gradients), within the range tried."""
        x, y = (np.log(column) for column in zip(*self.rate_at, strict=True))
        slope, start = np.polyfit(x, y, 1) if len(self.rate_at) > 1 else (0.0, y[0])
        return float(min(max(math.exp(start + slope * math.log(n)) * math.sqrt(batch), self.tried[0]), self.tried[1]))

    def batch_for(self, d: float) -> float:
        """The factor of the batch, which grows as the root of the tokens (Zhang et al. 2024, critical batch sizes)."""
        return self.batch * math.sqrt(d / self.tokens)


def rule(
    rates: dict[float, list[tuple[float, float]]], batches: list[tuple[float, float]], tokens: float
) -> ScalingRule:
    """The rule fitted to trials.

    Args:
        rates: parameters -> (factor of the rates, loss) of each trial.
        batches: (factor of the batch, loss) of each trial, at `tokens`.
    """
    factors = [factor for points in rates.values() for factor, _ in points]
    rate_at = tuple((n, best(points)) for n, points in sorted(rates.items()))
    sizes = [factor for factor, _ in batches]
    return ScalingRule(rate_at, best(batches), tokens, (min(factors), max(factors)), (min(sizes), max(sizes)))
