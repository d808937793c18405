"""The page of a watched model: verdict, quality of answers, statistics over time with their bands, and episodes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.reporting.band_picture import Point, picture
from pipeline.reporting.rendering import page
from pipeline.reporting.wording import Words, load

_LOOKS = 90
_SHARES = ("accuracy", "thumbs", "unknown_words", "confidence")


def render(model: str, looks: Sequence[Mapping[str, Any]], episodes: Sequence[Mapping[str, Any]], language: str) -> str:
    """The page as HTML.

    Args:
        model: its name.
        looks: of the watch as JSON, in order, at least one; the last has the present verdict.
        episodes: as JSON, in order.
        language: of the page.
    """
    words, last = load(language), looks[-1]
    shown = [look for look in looks if look["model_sha256"] == last["model_sha256"]][-_LOOKS:]
    return page(
        "watch.html", words, model=model, verdict=last["verdict"], facts=_facts(last, words),
        quality=[_quality(row, shown, words) for row in last["quality"]],
        missing=[text for row in last["missing"] if (text := _missing(row, words))],
        statistics=[_statistic(row, shown, words) for row in last["statistics"]],
        episodes=[_episode(row, words) for row in reversed(episodes)],
    )  # fmt: skip


def _facts(look: Mapping[str, Any], words: Words) -> str:
    reference = look["reference"]
    return words(
        "watch.look", number=words.integer(look["number"]), date=_date(look["time"]),
        requests=words.integer(look["requests"]), first=_date(look["from_time"]), last=_date(look["until_time"]),
        observations=words.integer(reference["observations"]), source=words(f"watch.source.{reference['source']}"),
        sha=look["model_sha256"][:12],
    )  # fmt: skip


def _quality(row: Mapping[str, Any], looks: Sequence[Mapping[str, Any]], words: Words) -> dict[str, Any]:
    """A measure of quality with its values over the looks; the whiskers are their intervals."""
    name, share = words(f"watch.{row['name']}"), row["name"] in _SHARES
    past = [one for look in looks for one in look["quality"] if one["name"] == row["name"]]
    points = [Point(one["value"], one["low"], one["high"], one["worse"]) for one in past]
    written = partial(_number, share=share, words=words)
    return {
        "name": name, "value": written(row["value"]), "reference": written(row["reference"]),
        "interval": words("format.interval", low=written(row["low"]), high=written(row["high"])),
        "count": words.integer(row["count"]), "flagged": row["worse"], "look": "bad" if row["worse"] else "good",
        "verdict": words("watch.worse" if row["worse"] else "watch.not worse"),
        "picture": picture(points, row["reference"], _label(name, points, written, words), written, band=False),
    }  # fmt: skip


def _statistic(row: Mapping[str, Any], looks: Sequence[Mapping[str, Any]], words: Words) -> dict[str, Any]:
    """A statistic with its values over the looks and the band of each."""
    name = words(f"watch.statistic.{row['name']}", category=row["category"])
    share = row["category"] is not None or row["name"] in _SHARES
    key = (row["name"], row["category"])
    past = [one for look in looks for one in look["statistics"] if (one["name"], one["category"]) == key]
    points = [Point(one["window"], one["low"], one["high"], one["drifted"]) for one in past]
    written = partial(_number, share=share, words=words)
    return {
        "name": name, "value": written(row["window"]), "reference": written(row["reference"]),
        "flagged": row["drifted"], "look": "warn", "verdict": words("watch.changed"),
        "picture": picture(points, row["reference"], _label(name, points, written, words), written, band=True),
    }  # fmt: skip


def _label(name: str, points: Sequence[Point], written: Callable[[float], str], words: Words) -> str:
    """The picture in words, for readers that see none."""
    first, last = written(points[0].value), written(points[-1].value)
    return words("watch.picture", name=name, looks=words.integer(len(points)), first=first, last=last)


def _missing(row: Mapping[str, Any], words: Words) -> str:
    """A sentence about a measure without enough evidence; "" for one that this model can't have."""
    measure = words(f"watch.{row['name']}")
    if row["needed"]:
        return words(
            "watch.missing", measure=measure, n=words.integer(row["count"]), needed=words.integer(row["needed"])
        )
    return words("watch.no reference", measure=measure) if row["name"] == "accuracy" and row["count"] else ""


def _episode(row: Mapping[str, Any], words: Words) -> dict[str, str]:
    names = [
        words(key, category="").strip()
        for name in row["evidence"]
        for key in (f"watch.statistic.{name}", f"watch.{name}")
        if words.has(key)
    ]
    return {
        "kind": row["kind"], "began": _date(row["began"]),
        "ended": _date(row["ended"]) if row["ended"] else words("watch.episode.open"), "evidence": ", ".join(names),
    }  # fmt: skip


def _number(value: float, share: bool, words: Words) -> str:
    if share:
        return words.percent(value, 1)
    return words.number(value, 1) if abs(value) >= 10 else words.number(value, 3)


def _date(moment: str) -> str:
    """`2026-11-29 20:40` of ISO 8601, in UTC."""
    return moment[:16].replace("T", " ")
