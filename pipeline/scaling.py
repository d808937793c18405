"""How the loss falls with weights and tokens, and what follows for a budget: size, tokens, batch, learning rate.

The law is that of Hoffmann et al. 2022 (equation 2): L(N, D) = E + A / N^alpha + B / D^beta, fitted as in their
appendix D.2 (Huber loss of the logarithms, many starts). Where the documents' source knows their entropy, E is that and
not fitted. N are the weights that multiply (no embedding table), D the tokens trained on.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.config import Pretrain, UserError
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.studies import Result, flops_a_token, weights

_HUBER = 1e-3  # of the logarithm of the loss, as there
# No network of this many heads was ever trained; the search for the best width ends somewhere.
_HEADS = 256


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
    return float(min(max(math.exp(at), pairs[0][0]), pairs[-1][0]))


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

    def rate(self, n: float, batch: float = 1.0) -> float:
        """A straight line through the logarithms: rates fall with size by a power, and grow as the root of the batch
        (Malladi et al. 2022, for rules that normalise their gradients); no further than was tried."""
        x, y = (np.log(column) for column in zip(*self.rate_at, strict=True))
        slope, start = np.polyfit(x, y, 1) if len(self.rate_at) > 1 else (0.0, y[0])
        return float(min(max(math.exp(start + slope * math.log(n)) * math.sqrt(batch), self.tried[0]), self.tried[1]))

    def batch_for(self, d: float) -> float:
        """The useful batch grows as the root of the tokens (Zhang et al. 2024, on critical batch sizes)."""
        return self.batch * math.sqrt(d / self.tokens)


def rule(rates: dict[float, list[tuple[float, float]]], batches: list[tuple[float, float]], tokens: float) -> Rule:
    """The rule of trials: weights -> (factor of the rates, loss), and (factor of the batch, loss) at `tokens`."""
    factors = [factor for points in rates.values() for factor, _ in points]
    rate_at = tuple((n, best(points)) for n, points in sorted(rates.items()))
    return Rule(rate_at, best(batches), tokens, (min(factors), max(factors)))


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


def sized(recipe: Pretrain, heads: int, vocab_size: int) -> tuple[int, float]:
    """Weights that multiply, and operations a token, of that shape."""
    fields = recipe.model.model_dump() | {k.removeprefix("model."): v for k, v in shape(recipe, heads).items()}
    network = GPT(ModelConfig(**fields, vocab_size=vocab_size), None)
    return weights(network), flops_a_token(network)


class Proposal(NamedTuple):
    """What a budget is best spent on."""

    heads: int
    weights: int
    tokens: float
    flops: float
    loss: float
    """Foretold, nats a token."""


def proposal(law: Law, recipe: Pretrain, vocab_size: int, flops: Callable[[int], float]) -> Proposal:
    """The width whose loss is lowest when all operations are spent; one up or down is worse, up to _HEADS.

    Args:
        flops: what the budget buys at a width, operations.
    """
    found: list[Proposal] = []
    for heads in itertools.count(1):
        n, a_token = sized(recipe, heads, vocab_size)
        d = flops(heads) / a_token
        found.append(Proposal(heads, n, d, flops(heads), law.loss(n, d)))
        if len(found) > 1 and found[-1].loss > found[-2].loss:
            return found[-2]
        if heads == _HEADS:
            return found[-1]
    raise AssertionError("itertools.count has no end")


def changes(recipe: Pretrain, found: Proposal, law_rule: Rule) -> dict[str, Any]:
    """The proposal as settings below `pretrain`: shape, steps, batch, rates; cadences in proportion."""
    old = recipe.schedule
    at_once = int(recipe.part("ordering", "pretrain").batch_size)
    wanted = at_once * old.accumulate * law_rule.batch_for(found.tokens)
    at_once = min(at_once, max(1, round(wanted)))
    accumulate = max(1, round(wanted / at_once))
    steps = max(1, round(found.tokens / (at_once * accumulate * recipe.model.context_length)))
    batch = at_once * accumulate / (int(recipe.part("ordering", "pretrain").batch_size) * old.accumulate)
    rate = law_rule.rate(found.weights, batch)
    factor = {name: value for name, value in recipe.optimizer.model_dump().items() if name.endswith("learning_rate")}
    return {
        **shape(recipe, found.heads),
        **{f"optimizer.{name}": float(f"{value * rate:.3g}") for name, value in factor.items()},
        "ordering.batch_size": at_once,
        "schedule.accumulate": accumulate,
        "schedule.batch_warmup_steps": 0,
        "schedule.steps": steps,
        "schedule.warmup_steps": round(old.warmup_steps * steps / max(1, old.steps)),
        "validation.every": max(1, steps // 4),
    }
