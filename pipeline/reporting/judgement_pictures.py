"""Pictures of training on judgement: reward against KL, beside best-of-n and the best possible; figures by update."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting.plots import INK, MARK, PLOT, SECOND, drawing, svg
from pipeline.reporting.wording import Words

_PANELS = 6
"""Most panels of figures by update."""


def frontier(models: Sequence[Mapping[str, Any]], reference: Mapping[str, Any], words: Words) -> str:
    """Reward of every model against its KL, beside best-of-n (dotted) and the best possible reward (dashed).

    Args:
        models: name, kl_nats and reward of each.
        reference: `best_of` and `best_possible` of the reference's answers, `reward` of the reference, and `in`.
        words: of the page.
    """
    figure = drawing(7, 3.8)
    axes = figure.subplots()
    start, value = reference["reward"], reference["in"]
    possible = [(row["kl_nats"], row["reward"]) for row in reference["best_possible"]]
    axes.plot(
        *_by_root([(0.0, start), *possible]), "--", color=INK, linewidth=1, label=words("judgement.best possible")
    )
    for judge, colour in (("true", SECOND), ("judge", MARK)):
        if points := [row for row in reference["best_of"] if row["by"] == judge]:
            label = words("judgement.best of", judge=words(f"judgement.{judge}"))
            xs, ys = _by_root([(row["kl_nats"], row[f"{value}_reward"]) for row in points])
            axes.plot(xs, ys, ":s", color=colour, markersize=3, linewidth=1.5, label=label)
    furthest = max((math.sqrt(max(0.0, model["kl_nats"])) for model in models), default=0.0)
    for place, model in enumerate(models):
        x = math.sqrt(max(0.0, model["kl_nats"]))
        axes.plot(x, model["reward"], "o", color=PLOT)
        left = place % 2 == 1 or x > 0.8 * furthest
        axes.annotate(
            model["name"], (x, model["reward"]), textcoords="offset points", xytext=(-5, -11) if left else (5, 5),
            ha="right" if left else "left",
        )  # fmt: skip
    _kl_axis(axes, words)
    axes.set_ylabel(words(f"judgement.reward.{value}"))
    axes.legend(frameon=False, loc="best")
    return svg(figure, words, words("judgement.frontier picture"))


def along(name: str, along: Mapping[str, Any], chosen: Mapping[str, float], words: Words) -> str:
    """Reward by each judge against the square root of the KL along a training, with the fitted curve, the turning
    point and the chosen weights.

    Args:
        name: the model.
        along: `points` and `curves` of measure judgement.
        chosen: the metrics of the weights that were kept.
        words: of the page.
    """
    judges = [judge for judge in ("judge", "true") if f"{judge}_reward" in along["points"][0]]
    figure = drawing(3.6 * len(judges), 3.0)
    for axes, judge in zip(figure.subplots(1, len(judges), squeeze=False).flat, judges, strict=True):
        points = [(point["kl_nats"], point[f"{judge}_reward"]) for point in along["points"]]
        xs, ys = _by_root(points)
        axes.plot(xs, ys, "o", color=PLOT, markersize=4, label=words("judgement.state"))
        if curve := along["curves"].get(judge):
            grid = [max(xs) * place / 60 for place in range(61)]
            fitted = [ys[0] + _fitted(curve, x) for x in grid]
            axes.plot(grid, fitted, "-", color=PLOT, linewidth=1, label=words("judgement.fitted"))
            if curve["turns"]:
                axes.axvline(
                    curve["turning"], color=MARK, linestyle="--", linewidth=1, label=words("judgement.turning")
                )
        if "kl_nats" in chosen and f"{judge}_reward" in chosen:
            x = math.sqrt(max(0.0, chosen["kl_nats"]))
            axes.plot(x, chosen[f"{judge}_reward"], "D", color=SECOND, markeredgecolor=INK, markersize=7,
                      label=words("judgement.chosen"))  # fmt: skip
        _kl_axis(axes, words)
        axes.set_ylabel(words(f"judgement.reward.{judge}"))
        axes.legend(frameon=False, fontsize=7)
    return svg(figure, words, words("judgement.along picture", name=name))


def by_update(name: str, curve: Sequence[Mapping[str, float]], words: Words) -> str:
    """Every figure of the validations over the updates, a panel each; "" without any besides the loss."""
    columns = [key for key in (curve[0] if curve else {}) if _is_figure(key)][:_PANELS]
    if not columns:
        return ""
    across = min(3, len(columns))
    down = -(-len(columns) // across)
    figure = drawing(2.9 * across, 1.9 * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes, column in zip(panels, columns, strict=False):
        axes.plot(
            [point["step"] for point in curve], [point[column] for point in curve], "-o", color=PLOT, markersize=3
        )
        axes.set_title(figure_name(column, words), fontsize=9)
        axes.set_xlabel(words("plot.step"))
    for axes in panels[len(columns) :]:
        axes.remove()
    return svg(figure, words, words("judgement.by update picture", name=name))


def figure_name(column: str, words: Words) -> str:
    """A column of curve.csv in words; its own name without `validation_` where there are none."""
    name = column.removeprefix("validation_")
    return words(f"judgement.figure.{name}") if words.has(f"judgement.figure.{name}") else name


def _is_figure(column: str) -> bool:
    return column.startswith("validation_") and column != "validation_loss_nats"


def _fitted(curve: Mapping[str, float], distance: float) -> float:
    """d (alpha - beta ln d): pipeline/frontier.py."""
    return distance * (curve["alpha"] - curve["beta"] * math.log(distance)) if distance > 0 else 0.0


def _by_root(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Square roots of the KL, and rewards."""
    return [math.sqrt(max(0.0, kl)) for kl, _ in points], [reward for _, reward in points]


def _kl_axis(axes: Any, words: Words) -> None:
    """An x axis by the square root of the KL, with the KL itself at its ticks."""
    most = axes.get_xlim()[1] ** 2
    kept = [0.0, *(kl for kl in (2.0**power for power in range(-4, 20)) if most / 20 <= kl <= most)]
    axes.set_xticks([math.sqrt(kl) for kl in kept], [f"{kl:g}" for kl in kept])
    axes.set_xlabel(words("judgement.kl axis"))
