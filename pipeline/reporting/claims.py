"""Tests of claims about methods: a metric over seeds compared with another method's, by a margin fixed before.

`experiments` of params.yaml holds the claims; only the report reads it, so a claim can be written down before any
method has run, and changing it retrains nothing. A method wins when the difference of the means less two standard
errors (Welch) exceeds the margin. Without another method its mean is tested against the margin.
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
    """One experiment and its result."""

    name: str
    claim: str
    figure: str
    method: str
    against: str | None
    ours: tuple[float, ...]
    """The metric of the method, a value per seed."""
    theirs: tuple[float, ...]
    """The metric of the method beside it, a value per seed."""
    gain: float
    """Difference of the means, in the metric's unit; positive: the method is better."""
    error: float
    """Two standard errors of that difference."""
    margin: float
    """Gain that must be exceeded."""
    wins: bool
    """Whether the gain less the error exceeds the margin."""
    expected: bool
    """Whether the method should win."""


def findings(experiments: Mapping[str, Experiment], models: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """The result of every experiment, in the order of params.yaml.

    Raises:
        UserError: a method without recipes, or recipes without the figure.
    """
    return [_finding(name, experiment, models) for name, experiment in experiments.items()]


def _finding(name: str, experiment: Experiment, models: Sequence[Mapping[str, Any]]) -> Finding:
    ours = _values(name, experiment, experiment.method, models)
    theirs = (0.0,) if experiment.against is None else _values(name, experiment, experiment.against, models)
    sign = 1.0 if experiment.better == "higher" else -1.0
    gain = sign * (statistics.fmean(ours) - statistics.fmean(theirs))
    error = 2 * sum(statistics.variance(values) / len(values) for values in (ours, theirs) if len(values) > 1) ** 0.5
    wins = gain - error > experiment.margin
    return Finding(
        name=name,
        claim=experiment.claim,
        figure=experiment.figure,
        method=experiment.method,
        against=experiment.against,
        ours=ours,
        theirs=theirs,
        gain=gain,
        error=error,
        margin=experiment.margin,
        wins=wins,
        expected=experiment.expect,
    )


def _values(name: str, experiment: Experiment, method: str, models: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    named = re.compile(rf"{re.escape(method)}(-s\d+)?")
    seeds = [model for model in models if named.fullmatch(model["name"])]
    if not seeds:
        raise UserError(
            f"params.yaml: experiments.{name} names {method!r}; no recipe is called {method}, or {method}-s1 and so on"
        )
    return tuple(_figure(name, experiment, model) for model in seeds)


def _figure(name: str, experiment: Experiment, model: Mapping[str, Any]) -> float:
    if experiment.figure == "updates_to":
        return _updates(model["curve"], float(experiment.target or 0.0))
    known = model["training"] | model["metrics"]
    if experiment.figure not in known:
        raise UserError(
            f"params.yaml: experiments.{name}.figure is {experiment.figure!r}, which {model['name']} does not have; "
            f"one of: {', '.join(sorted(known))}, updates_to"
        )
    return float(known[experiment.figure])


def _updates(curve: Sequence[Mapping[str, float]], target: float) -> float:
    """Updates until the validation loss reaches the target, interpolated linearly between validations.

    A run that never reaches the target counts with one validation more than it had: too few, in its favour.
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
