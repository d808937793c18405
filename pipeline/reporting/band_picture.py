"""A picture of a number over time: a line with a band behind it, or with a whisker at each value, as SVG."""

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT, _TOP, _BOTTOM = 300, 96, 12, 80
_LEFT, _RIGHT = 4.0, 240.0  # of the drawing; the numbers of its bounds stand right of it
_MOST_DOTS = 30


class Point(NamedTuple):
    """A number at one time."""

    value: float
    low: float
    """Bounds of the band, or of the value's interval."""
    high: float
    flagged: bool
    """Drawn as a large dot."""


def picture(
    points: Sequence[Point], reference: float, label: str, written: Callable[[float], str], *, band: bool
) -> str:
    """The SVG.

    Args:
        points: in the order of time, at least one.
        reference: drawn as a dashed line.
        label: the picture in words.
        written: writes a number in the language of the page.
        band: whether the bounds of the points are a band, else whiskers.
    """
    bounds = [reference, *(bound for point in points for bound in point[:3])]
    lowest, highest = min(bounds), max(bounds)
    room = (highest - lowest) or 1.0
    step = (_RIGHT - _LEFT) / max(1, len(points) - 1)
    middle = (_LEFT + _RIGHT) / 2
    x = [round(_LEFT + step * place, 1) if len(points) > 1 else middle for place in range(len(points))]

    def y(value: float) -> float:
        return round(_BOTTOM - (value - lowest) / room * (_BOTTOM - _TOP), 1)

    parts = [_band(x, points, y) if band else _whiskers(x, points, y)]
    parts.append(f'<line class="level" x1="{_LEFT}" x2="{_RIGHT}" y1="{y(reference)}" y2="{y(reference)}"/>')
    line = " ".join(f"{at},{y(point.value)}" for at, point in zip(x, points, strict=True))
    parts.append(f'<polyline class="line" points="{line}"/>')
    for at, point in zip(x, points, strict=True):
        if point.flagged or len(points) <= _MOST_DOTS or at == x[-1]:
            kind, size = ("out", 3.4) if point.flagged else ("dot", 2.0)
            parts.append(f'<circle class="{kind}" cx="{at}" cy="{y(point.value)}" r="{size}"/>')
    parts.append(f'<text x="{_RIGHT + 6}" y="{_TOP + 4}">{escape(written(highest))}</text>')
    parts.append(f'<text x="{_RIGHT + 6}" y="{_BOTTOM + 3}">{escape(written(lowest))}</text>')
    return (
        f'<svg role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}">{"".join(parts)}</svg>'
    )


def _band(x: Sequence[float], points: Sequence[Point], y: Callable[[float], float]) -> str:
    """The bounds as a polygon; of one point over the whole width."""
    if len(points) == 1:
        x, points = [_LEFT, _RIGHT], [points[0], points[0]]
    upper = [f"{at},{y(point.high)}" for at, point in zip(x, points, strict=True)]
    lower = [f"{at},{y(point.low)}" for at, point in zip(x, points, strict=True)]
    return f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>'


def _whiskers(x: Sequence[float], points: Sequence[Point], y: Callable[[float], float]) -> str:
    return "".join(
        f'<line class="whisker" x1="{at}" x2="{at}" y1="{y(point.low)}" y2="{y(point.high)}"/>'
        for at, point in zip(x, points, strict=True)
    )
