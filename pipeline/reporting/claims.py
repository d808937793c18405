"""What a method must show: one figure over seeds beside that of another method, and a margin that was fixed before.

`experiments` of params.yaml names them; nothing but the report reads it, so a claim can be written down before anything
has run and changing it trains nothing. A method wins when it is better by more than the margin and chance alone would
not often do that: the difference of the means less two standard errors (Welch) lies above the margin. With nobody
beside it the same is asked of its mean alone.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.params import Experiment
from pipeline.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One experiment and what came of it."""

    name: str
    claim: str
    figure: str
    method: str
    against: str | None
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    gain: float
    """How much better the method is in the mean, in the figure's unit; negative: worse."""
    error: float
    """Two standard errors of that difference."""
    margin: float
    wins: bool
    expected: bool


def findings(experiments: Mapping[str, Experiment], models: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What came of every experiment, in the order of the params.

    Raises:
        UserError: a method without recipes, or recipes without the figure.
    """
    return [_finding(name, one, models) for name, one in experiments.items()]


def _finding(name: str, one: Experiment, models: Sequence[Mapping[str, Any]]) -> Finding:
    ours = _values(name, one, one.method, models)
    theirs = (0.0,) if one.against is None else _values(name, one, one.against, models)
    sign = 1.0 if one.better == "higher" else -1.0
    gain = sign * (statistics.fmean(ours) - statistics.fmean(theirs))
    error = 2 * sum(statistics.variance(values) / len(values) for values in (ours, theirs) if len(values) > 1) ** 0.5
    wins = gain - error > one.margin
    return Finding(
        name, one.claim, one.figure, one.method, one.against, ours, theirs, gain, error, one.margin, wins, one.expect
    )


def _values(name: str, one: Experiment, method: str, models: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    named = re.compile(rf"{re.escape(method)}(-s\d+)?")
    seeds = [model for model in models if named.fullmatch(model["name"])]
    if not seeds:
        raise UserError(
            f"params.yaml: experiments.{name} names {method!r}; no recipe is called {method}, or {method}-s1 and so on"
        )
    return tuple(_figure(name, one, model) for model in seeds)


def _figure(name: str, one: Experiment, model: Mapping[str, Any]) -> float:
    if one.figure == "updates_to":
        return _updates(model["curve"], float(one.target or 0.0))
    known = model["training"] | model["metrics"]
    if one.figure not in known:
        raise UserError(
            f"params.yaml: experiments.{name}.figure is {one.figure!r}, which {model['name']} does not have; one of: "
            f"{', '.join(sorted(known))}, updates_to"
        )
    return float(known[one.figure])


def _updates(curve: Sequence[Mapping[str, float]], target: float) -> float:
    """Updates until the validation loss is down to the target, between validations by a straight line.

    A run that never comes there counts with one validation more than it had: too few, in its favour.
    """
    before = None
    for point in curve:
        loss = point["validation_loss_nats"]
        if loss <= target:
            if before is None:
                return point["step"]
            share = (before["validation_loss_nats"] - target) / max(before["validation_loss_nats"] - loss, 1e-12)
            return before["step"] + share * (point["step"] - before["step"])
        before = point
    stride = curve[-1]["step"] / len(curve)
    return curve[-1]["step"] + stride
