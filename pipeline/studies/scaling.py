"""How the loss falls with weights and tokens: the trials that tell, the law, the rule for learning rates and batch.

The law is that of Hoffmann et al. 2022 (equation 2): L(N, D) = E + A / N^alpha + B / D^beta, fitted as in their
appendix D.2 (Huber loss of the logarithms, many starts). Where the documents' source knows their entropy, E is that and
not fitted. N are the weights that multiply (no embedding table), D the tokens trained on.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.config.params import Params
from pipeline.config.recipe import Pretrain
from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.studies.trials import Result, Trial

_HUBER = 1e-3  # of the logarithm of the loss, as there


@dataclass(frozen=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta, nats a token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n: float, d: float) -> float:
        """Of so many weights after so many tokens."""
        return float(self.E + self.A / n**self.alpha + self.B / d**self.beta)

    def __str__(self) -> str:
        return f"{self.E:.3f} + {self.A:.3g} / N^{self.alpha:.3f} + {self.B:.3g} / D^{self.beta:.3f}"


def fit(found: Sequence[Result]) -> Law:
    """The law of these trials, those aside that diverged. Raises UserError where there are too few to tell."""
    from scipy.optimize import least_squares

    found = [one for one in found if math.isfinite(one.loss_nats)]
    sizes, lengths = len({one.weights for one in found}), len({one.tokens for one in found})
    if sizes < 3 or lengths < 3:
        raise UserError(f"{sizes} sizes, {lengths} numbers of tokens; a law needs three of each (infra/scaling.yaml)")
    n, d, loss = np.array([(one.weights, one.tokens, one.loss_nats) for one in found], dtype=float).T
    known = found[0].known_nats

    def law(x: np.ndarray) -> Law:
        E = known if known is not None else math.exp(x[4])
        return Law(E, *(float(v) for v in np.exp(x[:4])))

    def missed(x: np.ndarray) -> Any:
        a, b, alpha, beta = np.exp(x[:4])
        floor = known if known is not None else np.exp(x[4])
        with np.errstate(over="ignore"):  # an exponent that was tried too large: its term is zero
            return np.log(floor + a / n**alpha + b / d**beta) - np.log(loss)

    tried = []
    for alpha, beta, share in itertools.product((0.2, 0.4, 0.8), (0.2, 0.4, 0.8), (0.5, 0.8, 0.95)):
        floor = known if known is not None else share * loss.min()
        above = max(1e-3, loss.mean() - floor) / 2
        start = [math.log(above) + alpha * np.log(n).mean(), math.log(above) + beta * np.log(d).mean()]
        start += [math.log(alpha), math.log(beta)] + ([] if known is not None else [math.log(floor)])
        tried.append(least_squares(missed, start, loss="huber", f_scale=_HUBER, max_nfev=4000))
    return law(min(tried, key=lambda one: one.cost).x)


def best(points: Iterable[tuple[float, float]]) -> float:
    """Where a parabola through (factor, loss), over the logarithm of the factor, is lowest, among the factors tried.

    Where the points have no valley: the factor of the lowest. Beyond what was tried a parabola says nothing.
    """
    pairs = sorted((factor, loss) for factor, loss in points if math.isfinite(loss))
    if not pairs:
        raise UserError("every trial of a rate or a batch diverged; lower the learning rates in params.yaml")
    x, y = np.log([factor for factor, _ in pairs]), np.array([loss for _, loss in pairs])
    curve = np.polyfit(x, y, 2) if len(pairs) > 2 else np.zeros(3)
    at = -curve[1] / (2 * curve[0]) if curve[0] > 0 else x[int(y.argmin())]
    if at <= x[0] or at >= x[-1]:  # not by way of the logarithm, which would round it
        return pairs[0][0] if at <= x[0] else pairs[-1][0]
    return math.exp(at)


@dataclass(frozen=True)
class Rule:
    """How learning rates and batch follow from size and tokens, as factors of those of params.yaml."""

    rate_at: tuple[tuple[float, float], ...]
    """Weights -> best factor of the learning rates."""
    batch: float
    """Best factor of the batch at `tokens`."""
    tokens: float
    tried: tuple[float, float]
    """The lowest and the highest factor of the rates that any trial had."""
    batches: tuple[float, float]
    """The lowest and the highest factor of the batch."""

    def rate(self, n: float, batch: float = 1.0) -> float:
        """A straight line through the logarithms: rates fall with size by a power, and grow as the root of the batch
        (Malladi et al. 2022, for rules that normalise their gradients); no further than was tried."""
        x, y = (np.log(column) for column in zip(*self.rate_at, strict=True))
        slope, start = np.polyfit(x, y, 1) if len(self.rate_at) > 1 else (0.0, y[0])
        return float(min(max(math.exp(start + slope * math.log(n)) * math.sqrt(batch), self.tried[0]), self.tried[1]))

    def batch_for(self, d: float) -> float:
        """The useful batch grows as the root of the tokens (Zhang et al. 2024, on critical batch sizes)."""
        return self.batch * math.sqrt(d / self.tokens)

    def at_the_edge(self) -> list[str]:
        """What is best at the lowest or highest factor that was tried, so that the best may lie beyond."""
        found = [f"rates of {n:,.0f} weights (x {factor:g})" for n, factor in self.rate_at if factor in self.tried]
        return found + ([f"batch (x {self.batch:g})"] if self.batch in self.batches else [])


def rule(rates: dict[float, list[tuple[float, float]]], batches: list[tuple[float, float]], tokens: float) -> Rule:
    """The rule of trials: weights -> (factor of the rates, loss), and (factor of the batch, loss) at `tokens`."""
    factors = [factor for points in rates.values() for factor, _ in points]
    rate_at = tuple((n, best(points)) for n, points in sorted(rates.items()))
    sizes = [factor for factor, _ in batches]
    return Rule(rate_at, best(batches), tokens, (min(factors), max(factors)), (min(sizes), max(sizes)))


def shape(recipe: Pretrain, heads: int) -> dict[str, int]:
    """Changes to `pretrain.model` that make it so many heads wide, all else in proportion."""
    model = recipe.model
    groups = model.n_heads // model.n_kv_heads
    d_model = round(heads * model.d_model / model.n_heads)
    return {
        "model.n_heads": heads,
        "model.n_kv_heads": heads // groups if heads % groups == 0 else heads,
        "model.n_layers": max(1, round(heads * model.n_layers / model.n_heads)),
        "model.d_model": d_model,
        "model.d_ff": round(d_model * model.d_ff / model.d_model),
    }


class Plan(Section):
    """What infra/scaling.yaml says: factors of params.yaml's pretrain."""

    widths: list[float]
    tokens: list[float]
    rates: list[float]
    batches: list[float]
    seed: int


class Study(NamedTuple):
    """The trials and what they found, by what they are for."""

    grid: list[tuple[Trial, Result]]
    rates: list[tuple[Trial, Result]]
    batches: list[tuple[Trial, Result]]


def planned(params: Params, plan: Plan) -> tuple[list[Trial], list[Trial], list[Trial]]:
    """The trials for the law, for the learning rates, for the batch."""
    recipe = params.pretrain
    heads = sorted({max(1, round(width * recipe.model.n_heads)) for width in plan.widths})
    half = sorted(plan.tokens)[(len(plan.tokens) - 1) // 2]
    grid = [_trial(params, plan.seed, n, tokens) for n in heads for tokens in plan.tokens]
    rates = [_trial(params, plan.seed, n, half, rate=rate) for n in heads for rate in (1.0, *plan.rates)]
    own = recipe.model.n_heads
    windows = recipe.part("ordering", "pretrain").batch_size
    sizes = dict.fromkeys(max(1, round(windows * batch)) / windows for batch in (1.0, *plan.batches))
    batches = [_trial(params, plan.seed, own, 1.0, math.sqrt(batch), batch) for batch in sizes]
    return grid, rates, batches


def _trial(params: Params, seed: int, heads: int, tokens: float, rate: float = 1.0, batch: float = 1.0) -> Trial:
    """So many heads wide, so many times the tokens, rates and batch of params.yaml."""
    recipe, steps = params.pretrain, params.pretrain.schedule.steps
    windows = recipe.part("ordering", "pretrain").batch_size
    size = max(1, round(windows * batch))
    scaled = max(1, round(steps * tokens * windows / size))
    rates = {name: value for name, value in recipe.optimizer.model_dump().items() if name.endswith("learning_rate")}
    changes: dict[str, Any] = {} if heads == recipe.model.n_heads else shape(recipe, heads)
    changes |= {f"optimizer.{name}": float(f"{value * rate:.6g}") for name, value in rates.items() if rate != 1}
    changes |= {
        "ordering.batch_size": size,
        "schedule.steps": scaled,
        "schedule.warmup_steps": min(scaled, recipe.schedule.warmup_steps),
        "schedule.batch_warmup_steps": 0,
        "validation.every": max(1, scaled // 4),
        "validation.batches": max(1, round(recipe.validation.batches * windows / size)),
    }
    return Trial(f"{heads} heads, tokens x {tokens:g}, rates x {rate:.3g}, batch x {batch:g}", seed, changes)


def rule_of(params: Params, found: Study) -> Rule:
    """How rates and batch follow, from the trials for them."""
    own = {name: v for name, v in params.pretrain.optimizer.model_dump().items() if name.endswith("learning_rate")}
    name = next(iter(own))
    windows = params.pretrain.part("ordering", "pretrain").batch_size
    rates: dict[float, list[tuple[float, float]]] = {}
    for trial, result in found.rates:
        factor = trial.changes.get(f"optimizer.{name}", own[name]) / own[name]
        rates.setdefault(float(result.weights), []).append((factor, result.loss_nats))
    batches = [(trial.changes["ordering.batch_size"] / windows, result.loss_nats) for trial, result in found.batches]
    return rule(rates, batches, float(found.batches[0][1].tokens))


def told(law: Law, rule: Rule, grid: Sequence[Result]) -> list[str]:
    """The findings as sentences."""
    largest = max((one for one in grid if math.isfinite(one.loss_nats)), key=lambda one: one.flops)
    without = fit([one for one in grid if one is not largest])
    off = {one: abs(law.loss(one.weights, one.tokens) - one.loss_nats) for one in grid if math.isfinite(one.loss_nats)}
    furthest = max(off, key=lambda one: off[one])
    edge = rule.at_the_edge()
    known = " (E is what a perfect model would lose, known of this source)" if grid[0].known_nats is not None else ""
    rates = ", ".join(f"{n:,.0f} weights x {factor:.2f}" for n, factor in rule.rate_at)
    return [
        f"loss = {law}{known}",
        f"half of the trials are within {statistics.median(off.values()):.4f} nats of it; the furthest, "
        f"{furthest.weights:,} weights on {furthest.tokens:,} tokens, is {off[furthest]:.4f} off",
        f"fitted without the largest trial it foretells {without.loss(largest.weights, largest.tokens):.4f} for it; it "
        f"found {largest.loss_nats:.4f}",
        f"learning rates, beside those of params.yaml: {rates}",
        f"batch, beside that of params.yaml: x {rule.batch:.2f} at {rule.tokens:,.0f} tokens, growing as their root",
        *([f"best at the edge of what was tried, widen infra/scaling.yaml: {', '.join(edge)}"] if edge else []),
    ]
