"""The lineage of a model as an inline SVG: a box for every stage with the hash of its result, linked to its page.

Boxes stand in rows, each below all that it was made from, so that the picture of a chain is as wide as a telephone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.config.params import Params
from pipeline.reporting.wording import Words
from pipeline.tracking import lineage

_WIDTH, _HEIGHT, _ACROSS, _DOWN, _EDGE = 164, 52, 20, 34, 2
_LONGEST = 22  # letters of a title that a box has room for
_HASH = 12  # hexadecimal digits that are shown


@dataclass(frozen=True)
class Box:
    """One stage of the lineage."""

    name: str
    kind: str
    """Source, records, model, ... in the words of the page."""
    sha256: str
    """Hash of its result, or empty where it is not known."""
    link: str
    """Address of its page, or empty."""
    made_from: tuple[str, ...]
    """Names of the boxes that it was made from."""
    note: str = ""
    """Verdict of its gate."""


def boxes(name: str, params: Params, models: Mapping[str, Mapping[str, Any]],
          sources: Mapping[str, Mapping[str, Any]], words: Words) -> list[Box]:  # fmt: skip
    """The boxes of a model, each after those that it was made from.

    Args:
        name: the model.
        params: names its ancestors.
        models: the report's models by name.
        sources: provenance of every source.
        words: of the page.
    """
    outs = lineage.dvc_outs()
    made = [
        Box(source, words("lineage.source"), str(entry.get("sha256") or ""), _web(entry.get("address")), ())
        for source, entry in sorted(sources.items())
    ]
    above = tuple(box.name for box in made)
    for stage in ("raw", "tokens", "samples"):
        page = f"../gates/{stage}/page.html"
        made.append(
            Box(f"data/{stage}", words(f"lineage.{stage}"), outs.get(f"data/{stage}", ""), page, above,
                _verdict(stage, words))
        )  # fmt: skip
        above = (f"data/{stage}",)
    for model in params.lineage(name):
        link = f"../models/{model}.html"
        verdict = models[model]["verdict"]
        note = words(f"lineage.gate {'passed' if verdict['passed'] else 'failed'}") if verdict else ""
        parents = _parents(model, params) or ("data/samples",)
        sha256 = str(models[model]["details"].get("model_sha256", ""))
        made.append(Box(model, words("lineage.model"), sha256, link, parents, note))
    return made


def _parents(model: str, params: Params) -> tuple[str, ...]:
    if model in params.merge:
        return params.merge[model].first, params.merge[model].second
    return (params.finetune[model].start,) if model in params.finetune else ()


def _verdict(gate: str, words: Words) -> str:
    verdict = lineage.gate_verdicts().get(gate)
    return words(f"lineage.gate {'failed' if verdict == 'failed' else 'passed'}") if verdict else ""


def _web(address: object) -> str:
    return str(address) if str(address).startswith(("https://", "http://")) else ""


def svg(made: Sequence[Box], title: str) -> str:
    """The picture; every box with a page is a link."""
    rows = _rows(made)
    width = max(len(row) for row in rows) * (_WIDTH + _ACROSS) - _ACROSS + 2 * _EDGE
    height = len(rows) * (_HEIGHT + _DOWN) - _DOWN + 2 * _EDGE
    places: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        left = (width - len(row) * (_WIDTH + _ACROSS) + _ACROSS) / 2
        for place, box in enumerate(row):
            places[box.name] = left + place * (_WIDTH + _ACROSS), _EDGE + depth * (_HEIGHT + _DOWN)
    lines = [_line(places[above], places[box.name]) for box in made for above in box.made_from]
    drawn = "".join([*lines, *(_drawn(box, *places[box.name]) for box in made)])
    return (
        f'<svg class="lineage" role="group" aria-label="{escape(title, quote=True)}" width="{width:g}" '
        f'height="{height:g}" viewBox="0 0 {width:g} {height:g}"><defs><marker id="arrow" viewBox="0 0 6 6" refX="6" '
        'refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="currentColor"/>'
        f"</marker></defs>{drawn}</svg>"
    )


def _rows(made: Sequence[Box]) -> list[list[Box]]:
    """The boxes by the length of the longest way from a source."""
    depths: dict[str, int] = {}
    for box in made:
        depths[box.name] = 1 + max((depths[above] for above in box.made_from), default=-1)
    return [[box for box in made if depths[box.name] == depth] for depth in range(1 + max(depths.values()))]


def _line(above: tuple[float, float], below: tuple[float, float]) -> str:
    x1, y1, x2, y2 = above[0] + _WIDTH / 2, above[1] + _HEIGHT, below[0] + _WIDTH / 2, below[1] - 1
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" fill="none" '
        'stroke="currentColor" marker-end="url(#arrow)"/>'
    )


def _drawn(box: Box, x: float, y: float) -> str:
    title = box.name if len(box.name) <= _LONGEST else f"{box.name[: _LONGEST - 1]}…"
    kind = f"{box.kind}, {box.note}" if box.note else box.kind
    middle = x + _WIDTH / 2
    texts = [(15, "title", title), (30, "kind", kind), (44, "hash", box.sha256[:_HASH])]
    inside = "".join(
        f'<text x="{middle:g}" y="{y + down:g}" text-anchor="middle" class="{look}">{escape(text)}</text>'
        for down, look, text in texts
        if text
    )
    drawn = f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>{inside}'
    hint = escape(f"{box.name}: {box.sha256}" if box.sha256 else box.name)
    if not box.link:
        return f"<g><title>{hint}</title>{drawn}</g>"
    return f'<a href="{escape(box.link, quote=True)}"><title>{hint}</title>{drawn}</a>'
