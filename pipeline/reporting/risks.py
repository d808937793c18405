"""Risks: a model's metrics beside the thresholds of the policy, with a picture of the dose response of each.

A dose response is what a measure showed where its fault was planted in the embedded world on purpose, in rising doses
(doses.json beside this file, measured by the command that it names): it tells what a value means. Without one, the
picture shows the place of the value between the two thresholds.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.review import RiskBounds
from pipeline.reporting.wording import Words

_DOSES = Path(__file__).parent / "doses.json"
_ORDER = ("fail", "warn", "pass", "unknown")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 300, 120, 8, 12, 20


class Risk(NamedTuple):
    """A metric that the policy judges as a risk."""

    metric: str
    value: float | None
    """None: not measured."""
    warn: float
    fail: float
    state: str
    """pass, warn, fail or unknown."""


class Mitigation(NamedTuple):
    """A recipe against a risk, and the metric without and with it, means over seeds."""

    names: dict[str, str]
    """Language -> what it is."""
    before: float
    after: float
    seeds: int


class Dose(NamedTuple):
    """The dose response of one metric."""

    names: dict[str, str]
    """Language -> what the dose is: `share of a group with its job`."""
    points: tuple[tuple[str, float], ...]
    """Dose -> mean of the metric over seeds; the clean twin first."""
    command: str
    """The command that measured it."""
    seeds: int
    """Seeds of the measurement."""
    mitigations: tuple[Mitigation, ...] = ()


def judged(metrics: Mapping[str, float], bounds: Mapping[str, RiskBounds]) -> list[Risk]:
    """Every risk of the policy with the state of this model, the worst first.

    Args:
        metrics: of the model.
        bounds: metric -> its bounds.
    """
    return worst_first(
        Risk(name, value, bound.warn, bound.fail, bound.state(value))
        if (value := metrics.get(name)) is not None
        else Risk(name, None, bound.warn, bound.fail, "unknown")
        for name, bound in bounds.items()
    )


def worst_first(found: Iterable[Risk]) -> list[Risk]:
    """The risks by their state."""
    return sorted(found, key=lambda risk: _ORDER.index(risk.state))


@cache
def doses() -> dict[str, Dose]:
    """Metric -> its dose response, of those that were measured."""
    table = json.loads(_DOSES.read_text(encoding="utf-8")) if _DOSES.is_file() else {}
    return {metric: _read(entry) for metric, entry in table.items()}


def _read(entry: Mapping[str, Any]) -> Dose:
    points = tuple((str(dose), float(value)) for dose, value in entry["points"])
    moved = tuple(
        Mitigation(one["name"], one["before"], one["after"], one["seeds"]) for one in entry.get("mitigations", [])
    )
    return Dose(entry["dose"], points, entry["command"], entry["seeds"], moved)


def picture(risk: Risk, words: Words, dose: Dose | None = None) -> str:
    """The dose response with the thresholds and this model as lines, or a scale of the thresholds, as inline SVG."""
    if risk.value is None:
        return ""
    known = {
        "metric": risk.metric, "value": words.general(risk.value), "warn": words.general(risk.warn),
        "fail": words.general(risk.fail),
    }  # fmt: skip
    if dose is None:
        return _scale(risk, words, words("risks.picture", **known))
    points = ", ".join(f"{_dose(name, words)}: {words.general(value, 3)}" for name, value in dose.points)
    title = words("risks.picture dose", dose=dose.names[words.language], points=points, **known)
    return _response(risk, words, dose, title)


def _scale(risk: Risk, words: Words, title: str) -> str:
    """A horizontal scale with the thresholds and this model."""
    value = float(risk.value or 0.0)
    low, high = min(value, risk.warn, risk.fail), max(value, risk.warn, risk.fail)
    margin = 0.15 * (high - low) or abs(high) or 1.0
    low, high = (min(0.0, low) if low >= 0 else low - margin), high + margin

    def x(place: float) -> float:
        return _LEFT + (place - low) / (high - low) * (_WIDTH - 2 * _LEFT)

    parts = [f'<line x1="{_LEFT}" x2="{_WIDTH - _LEFT}" y1="42" y2="42" stroke="currentColor"/>']
    for bound, look, state, top in ((risk.warn, "warn", "warn", 25), (risk.fail, "bad", "fail", 11)):
        parts.append(f'<line x1="{x(bound):.1f}" x2="{x(bound):.1f}" y1="{top + 3}" y2="50" stroke="var(--{look})" '
                     'stroke-width="2" stroke-dasharray="4 2"/>')  # fmt: skip
        name = f"{words(f'state.{state}')} {words.general(bound)}"
        parts.append(_text(x(bound), top, name, f"fill-{look}", _anchor(x(bound))))
    parts.append(f'<circle cx="{x(value):.1f}" cy="42" r="5" fill="var(--plot)"/>')
    parts.append(_text(x(value), 64, f"{words('risks.this')} {words.general(value)}", "", _anchor(x(value))))
    return _framed(parts, 70, title)


def _response(risk: Risk, words: Words, dose: Dose, title: str) -> str:
    """The metric over the doses, with horizontal lines for this model and the thresholds."""
    value = float(risk.value or 0.0)
    values = [value, risk.warn, risk.fail, *(one for _, one in dose.points)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    right = _WIDTH - 96  # room for the names of the lines

    def y(place: float) -> float:
        return _TOP + (high - place) / span * (_HEIGHT - _TOP - _BOTTOM - 8)

    step = (right - _LEFT - 16) / max(1, len(dose.points) - 1)
    xs = [_LEFT + 8 + place * step for place in range(len(dose.points))]
    path = " ".join(f"{x:.1f},{y(one):.1f}" for x, (_, one) in zip(xs, dose.points, strict=True))
    parts = [f'<polyline points="{path}" fill="none" stroke="currentColor"/>']
    for x, (name, one) in zip(xs, dose.points, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y(one):.1f}" r="3" fill="currentColor"/>')
        parts.append(_text(x, _HEIGHT - 6, _dose(name, words), "", "middle"))
    lines = [
        (risk.warn, "warn", words("state.warn")), (risk.fail, "bad", words("state.fail")),
        (value, "plot", words("risks.this")),
    ]  # fmt: skip
    for (bound, look, name), down in zip(lines, _apart([y(bound) for bound, _, _ in lines]), strict=True):
        dashes = "" if look == "plot" else ' stroke-dasharray="4 2"'
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y(bound):.1f}" y2="{y(bound):.1f}" '
                     f'stroke="var(--{look})" stroke-width="2"{dashes}/>')  # fmt: skip
        parts.append(_text(right + 4, down + 4, f"{name} {words.general(bound, 3)}", f"fill-{look}", "start"))
    return _framed(parts, _HEIGHT, title)


def _apart(places: Sequence[float], least: float = 13.0) -> list[float]:
    """Heights of labels near these places, none closer than `least` to another."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda one: places[one])
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + least)
    return moved


def _dose(name: str, words: Words) -> str:
    """A dose as its axis shows it: a number in the language's format, or `clean`."""
    try:
        return words.general(float(name), 3)
    except ValueError:
        return words(f"risks.{name}") if words.has(f"risks.{name}") else name


def _anchor(x: float) -> str:
    return "start" if x < 70 else "end" if x > _WIDTH - 70 else "middle"


def _text(x: float, y: float, text: str, look: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{look}">{escape(text)}</text>'


def _framed(parts: Sequence[str], height: int, title: str) -> str:
    return (
        f'<svg class="small" role="img" aria-label="{escape(title, quote=True)}" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}">{"".join(parts)}</svg>'
    )


def whisker(low: float, value: float, high: float, span: tuple[float, float]) -> str:
    """A value and its interval on a scale, for a table's cell; a stroke marks zero where the scale holds it.

    Args:
        low: lower bound of the interval.
        value: the value.
        high: upper bound.
        span: lowest and highest value of the scale.
    """
    if not all(map(math.isfinite, (low, value, high))):
        return ""
    least, most = span
    width = most - least or 1.0

    def x(place: float) -> float:
        return 4 + 112 * (min(max(place, least), most) - least) / width

    zero = f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="1" y2="15" stroke="var(--quiet)"/>' if least < 0 < most else ""
    return (
        f'<svg class="whisker" aria-hidden="true" width="120" height="16" viewBox="0 0 120 16">{zero}'
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="8" y2="8" stroke="currentColor" stroke-width="2"/>'
        f'<circle cx="{x(value):.1f}" cy="8" r="3.5" fill="var(--plot)"/></svg>'
    )
