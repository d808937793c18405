"""Plots of the reports as SVG: scores, costs and curves; equal input gives equal bytes.

They take their colours from the page (light, dark, paper), and their numbers and words from a language.
"""

import io
import math
import re
from collections.abc import Callable
from html import escape
from typing import Any

from pipeline.reporting import in_words
from pipeline.reporting.methods import Cost, Method
from pipeline.reporting.wording import Words, load

# Stand-ins that become the page's own colours: text and axes, bars and curves, a second series, marks of the baseline.
INK, PLOT, SECOND, MARK = "#010203", "#3b7a57", "#c9b458", "#b3261e"
_OF_THE_PAGE = {INK: "currentColor", PLOT: "var(--plot)", SECOND: "var(--plot-two)", MARK: "var(--bad)"}
_NUMBER = re.compile(r"(?<=>)([−+-]?\d+)\.(\d+)(?=</text>)")


def drawing(width: float, height: float) -> Any:
    """An empty matplotlib figure with reproducible SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "tohum", "svg.fonttype": "none", "font.size": 9, "legend.facecolor": "none"}
    matplotlib.rcParams |= dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    )
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Any, words: Words, title: str) -> str:
    """The figure as inline SVG with a title, for readers that see no pictures."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for colour, name in _OF_THE_PAGE.items():
        text = text.replace(colour, name)
    text = _NUMBER.sub(rf"\1{words.table['format.decimal']}\2", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(title, quote=True)}" ', 1)


def _bars(axes: Any, pairs: list[tuple[str, float]]) -> Any:
    """Horizontal bars with names, the first at the top; returns them."""
    bars = axes.barh([name for name, _ in pairs], [value for _, value in pairs], color=PLOT)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    return bars


def scores(models: list[dict[str, Any]], words: Words) -> str:
    """Bars of accuracy and exact match of all models with 95 % intervals, and marks of the baseline; "" without any."""
    rows = [
        (model["name"] if len(model["scores"]) == 1 else f"{model['name']}: {score}", score, value, model["metrics"])
        for model in models
        for score, value, _ in model["scores"]
        if score in ("accuracy", "exact_match")
    ]
    if not rows:
        return ""
    figure = drawing(7, 0.6 + 0.35 * len(rows))
    axes = figure.subplots()
    _bars(axes, [(name, value) for name, _, value, _ in rows])
    baselines = [
        (metrics["baseline_accuracy"], place)
        for place, (_, score, _, metrics) in enumerate(rows)
        if score == "accuracy" and "baseline_accuracy" in metrics
    ]
    for place, (_, score, value, metrics) in enumerate(rows):
        axes.text(1.04, place, words.number(value, 3), va="center")  # right of every interval
        if bounds := in_words.interval_bounds(metrics, score):
            below, above = max(0.0, value - bounds[0]), max(0.0, bounds[1] - value)
            axes.errorbar(value, place, xerr=[[below], [above]], color=INK, capsize=2, linewidth=1)
    if baselines:
        axes.plot(*zip(*baselines, strict=True), "|", color=MARK, markersize=13, markeredgewidth=2,
                  label=words("baseline.name"))  # fmt: skip
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, handlelength=1)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel(words("plot.scores"))
    return svg(figure, words, words("plot.scores"))


def by_time(methods: list[Method], costs: dict[str, Cost], words: Words | None = None) -> str:
    """Score against seconds of training, with the standard deviation over seeds."""
    points = [(costs[method.name].seconds, method) for method in methods if method.name in costs]
    words = words or load()
    return _points(points, words("plot.seconds"), words)


def by_share(methods: list[Method], words: Words | None = None) -> str:
    """Score against the share of trained weights, with the spread over seeds; "" where all shares are equal."""
    alike = [method for method in methods if method.score == methods[0].score]
    if len({method.trained_share for method in alike}) < 2:
        return ""
    words = words or load()
    return _points([(100 * method.trained_share, method) for method in methods], words("plot.shares"), words)


def _points(points: list[tuple[float, Method]], label: str, words: Words) -> str:
    """Methods by a cost and their score, with the spread over seeds; only methods with the score of the first."""
    if not points:
        return ""
    score = points[0][1].score
    chosen = sorted(((cost, method) for cost, method in points if method.score == score), key=lambda point: point[0])
    figure = drawing(8, 1.5 + 0.25 * len(chosen))
    axes = figure.subplots()
    for place, (cost, method) in enumerate(chosen):
        axes.errorbar(cost, method.mean, yerr=method.spread, fmt="o", color=PLOT, capsize=3)
        left = place % 2 == 1  # neighbours are named on two sides, so that names of like costs stay readable
        axes.annotate(
            method.name, (cost, method.mean), textcoords="offset points",
            xytext=(-5, -9) if left else (5, 4), ha="right" if left else "left",
        )  # fmt: skip
    baseline = next((method.baseline for _, method in chosen if method.baseline is not None), None)
    if baseline is not None:
        axes.axhline(baseline.accuracy, color=MARK, linestyle="--", linewidth=1, label=words("baseline.name"))
        axes.legend(frameon=False)
    _plain_log(axes)
    axes.set_xlabel(label)
    axes.set_ylabel(words("plot.held out", score=words.metric(score)))
    return svg(figure, words, label)


def by_length(families: dict[str, list[tuple[int, Method]]], words: Words | None = None) -> str:
    """Score against the number of virtual tokens, a line a family, with the standard deviation over seeds."""
    if not families:
        return ""
    figure = drawing(7, 3.2)
    axes = figure.subplots()
    for name, family in families.items():
        axes.errorbar(
            [length for length, _ in family], [method.mean for _, method in family],
            yerr=[method.spread for _, method in family], marker="o", capsize=3, label=name,
        )  # fmt: skip
    _plain_log(axes)
    words, score = words or load(), next(iter(families.values()))[0][1].score
    axes.set_xlabel(words("plot.virtual tokens"))
    axes.set_ylabel(words("plot.held out", score=words.metric(score)))
    axes.legend()
    return svg(figure, words, words("plot.virtual tokens"))


def scaling(trials: list[dict[str, float]], law: Callable[[float, float], float], words: Words) -> str:
    """Loss against tokens for every size: measured points and the law's curves."""
    figure = drawing(7, 4)
    axes = figure.subplots()
    sizes = sorted({trial["weights"] for trial in trials})
    for place, size in enumerate(sizes):
        own = sorted((trial["tokens"], trial["loss_nats"]) for trial in trials if trial["weights"] == size)
        tokens = [own[0][0] * (own[-1][0] / own[0][0]) ** (place / 40) for place in range(41)]
        strength = 0.25 + 0.75 * place / max(1, len(sizes) - 1)
        axes.plot(
            *zip(*own, strict=True),
            "o",
            color=INK,
            alpha=strength,
            label=words("scaling.curve", weights=words.integer(size)),
        )
        axes.plot(tokens, [law(size, count) for count in tokens], "-", color=INK, alpha=strength, linewidth=1)
    floor = law(math.inf, math.inf)
    axes.axhline(
        floor, color=PLOT, linestyle="--", linewidth=1, label=words("scaling.floor", loss=words.number(floor, 3))
    )
    axes.set_xscale("log")
    axes.set_xlabel(words("scaling.trained on"))
    axes.set_ylabel(words("scaling.held out"))
    axes.legend()
    return svg(figure, words, words("scaling.picture"))


def _plain_log(axes: Any) -> None:
    """A logarithmic x axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def bits(pairs: list[tuple[str, float]], words: Words) -> str:
    """Bars of bits per byte, by name of the model."""
    figure = drawing(7, 1.7)
    axes = figure.subplots()
    axes.bar_label(_bars(axes, pairs), fmt="%.3f", padding=3)
    axes.set_xlabel(words("plot.bits"))
    return svg(figure, words, words("plot.bits"))


def curves(models: list[dict[str, Any]], words: Words) -> str:
    """Training and validation loss over the steps, a panel a model; "" where no model has a curve."""
    models = [model for model in models if model["curve"]]
    if not models:
        return ""
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure = drawing(3.2 * columns, 2.2 * rows)
    for axes, model in zip(figure.subplots(rows, columns, squeeze=False).flat, models, strict=False):
        steps = [point["step"] for point in model["curve"]]
        for key, style in (("train_loss_nats", "--"), ("validation_loss_nats", "-")):
            axes.plot(
                steps,
                [point[key] for point in model["curve"]],
                style,
                label=words(f"plot.{key.split('_')[0]}"),
                color=PLOT,
            )
        axes.set_title(model["name"])
        axes.set_xlabel(words("plot.step"))
        axes.set_ylabel(words("plot.loss"))
        axes.legend(frameon=False)
    for axes in list(figure.axes)[len(models) :]:
        axes.remove()
    return svg(figure, words, words("compare.curves"))


def costs(rows: list[dict[str, Any]], words: Words) -> str:
    """Seconds of every stage from its run record: work, and start-up, imports and hashing."""
    if not rows:
        return ""
    figure = drawing(8, 0.8 + 0.25 * len(rows))
    axes = figure.subplots()
    names = [row["stage"] for row in rows]
    work = [row.get("seconds_work", 0.0) for row in rows]
    rest = [max(0.0, row.get("seconds_total", 0.0) - w) for row, w in zip(rows, work, strict=True)]
    axes.barh(names, work, color=PLOT, label=words("plot.work"))
    axes.barh(names, rest, left=work, color=SECOND, label=words("plot.rest"))
    axes.invert_yaxis()
    axes.set_xlabel(words("plot.stage seconds"))
    axes.legend(frameon=False)
    return svg(figure, words, words("costs.heading"))
