"""Plots of the reports as SVG: scores, costs and curves; equal input gives equal bytes."""

import io
import math
from collections.abc import Callable
from typing import Any

from pipeline.reporting import in_words
from pipeline.reporting.methods import BASELINE, Cost, Method


def _figure(width: float, height: float) -> Any:
    """An empty matplotlib figure with reproducible SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "tohum", "svg.fonttype": "none", "font.size": 9}
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Any) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _bars(axes: Any, pairs: list[tuple[str, float]]) -> Any:
    """Horizontal bars with names, the first at the top; returns them."""
    bars = axes.barh([name for name, _ in pairs], [value for _, value in pairs], color="#3b7a57")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    return bars


def scores(models: list[dict[str, Any]]) -> str:
    """Bars of accuracy and exact match of all models with 95 % intervals, and marks of the baseline; "" without any."""
    rows = [
        (model["name"] if len(model["scores"]) == 1 else f"{model['name']}: {score}", score, value, model["metrics"])
        for model in models
        for score, value, _ in model["scores"]
        if score in ("accuracy", "exact_match")
    ]
    if not rows:
        return ""
    figure = _figure(7, 0.6 + 0.35 * len(rows))
    axes = figure.subplots()
    _bars(axes, [(name, value) for name, _, value, _ in rows])
    baselines = [
        (metrics["baseline_accuracy"], place)
        for place, (_, score, _, metrics) in enumerate(rows)
        if score == "accuracy" and "baseline_accuracy" in metrics
    ]
    for place, (_, score, value, metrics) in enumerate(rows):
        axes.text(1.04, place, f"{value:.3f}", va="center")  # right of every interval
        if bounds := in_words.interval_bounds(metrics, score):
            below, above = max(0.0, value - bounds[0]), max(0.0, bounds[1] - value)
            axes.errorbar(value, place, xerr=[[below], [above]], color="#222", capsize=2, linewidth=1)
    if baselines:
        axes.plot(*zip(*baselines, strict=True), "|", color="#b3261e", markersize=13, markeredgewidth=2, label=BASELINE)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, handlelength=1)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("accuracy or exact match, held-out records, with 95 % intervals")
    return _svg(figure)


def by_time(methods: list[Method], costs: dict[str, Cost]) -> str:
    """Score against seconds of training, with the standard deviation over seeds."""
    points = [(costs[method.name].seconds, method) for method in methods if method.name in costs]
    return _points(points, "seconds of training, log scale")


def by_share(methods: list[Method]) -> str:
    """Score against the share of trained weights, with the spread over seeds; "" where all shares are equal."""
    alike = [method for method in methods if method.score == methods[0].score]
    if len({method.trained_share for method in alike}) < 2:
        return ""
    return _points([(100 * method.trained_share, method) for method in methods], "% of the weights trained, log scale")


def _points(points: list[tuple[float, Method]], label: str) -> str:
    """Methods by a cost and their score, with the spread over seeds; only methods with the score of the first."""
    if not points:
        return ""
    score = points[0][1].score
    chosen = sorted(((cost, method) for cost, method in points if method.score == score), key=lambda point: point[0])
    figure = _figure(8, 1.5 + 0.25 * len(chosen))
    axes = figure.subplots()
    for place, (cost, method) in enumerate(chosen):
        axes.errorbar(cost, method.mean, yerr=method.spread, fmt="o", color="#3b7a57", capsize=3)
        left = place % 2 == 1  # neighbours are named on two sides, so that names of like costs stay readable
        axes.annotate(
            method.name, (cost, method.mean), textcoords="offset points",
            xytext=(-5, -9) if left else (5, 4), ha="right" if left else "left",
        )  # fmt: skip
    baseline = next((method.baseline for _, method in chosen if method.baseline is not None), None)
    if baseline is not None:
        axes.axhline(baseline.accuracy, color="#b3261e", linestyle="--", linewidth=1, label=BASELINE)
        axes.legend(frameon=False)
    _plain_log(axes)
    axes.set_xlabel(label)
    axes.set_ylabel(f"{score}, held-out")
    return _svg(figure)


def by_length(families: dict[str, list[tuple[int, Method]]]) -> str:
    """Score against the number of virtual tokens, a line a family, with the standard deviation over seeds."""
    if not families:
        return ""
    figure = _figure(7, 3.2)
    axes = figure.subplots()
    for name, family in families.items():
        axes.errorbar(
            [length for length, _ in family], [method.mean for _, method in family],
            yerr=[method.spread for _, method in family], marker="o", capsize=3, label=name,
        )  # fmt: skip
    _plain_log(axes)
    axes.set_xlabel("virtual tokens, log scale")
    axes.set_ylabel(f"{next(iter(families.values()))[0][1].score}, held-out")
    axes.legend()
    return _svg(figure)


def scaling(trials: list[dict[str, float]], law: Callable[[float, float], float]) -> str:
    """Loss against tokens for every size: measured points and the law's curves."""
    figure = _figure(7, 4)
    axes = figure.subplots()
    sizes = sorted({trial["weights"] for trial in trials})
    shades = [str(0.75 * (1 - place / max(1, len(sizes) - 1))) for place in range(len(sizes))]
    for size, shade in zip(sizes, shades, strict=True):
        own = sorted((trial["tokens"], trial["loss_nats"]) for trial in trials if trial["weights"] == size)
        tokens = [own[0][0] * (own[-1][0] / own[0][0]) ** (place / 40) for place in range(41)]
        axes.plot(*zip(*own, strict=True), "o", color=shade, label=f"{size:,} parameters")
        axes.plot(tokens, [law(size, count) for count in tokens], "-", color=shade, linewidth=1)
    floor = law(math.inf, math.inf)
    axes.axhline(floor, color="#3b7a57", linestyle="--", linewidth=1, label=f"irreducible loss: {floor:.3f}")
    axes.set_xscale("log")
    axes.set_xlabel("tokens trained on, log scale")
    axes.set_ylabel("held-out loss, nats a token")
    axes.legend()
    return _svg(figure)


def _plain_log(axes: Any) -> None:
    """A logarithmic x axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def bits(pairs: list[tuple[str, float]]) -> str:
    """Bars of bits per byte, by name of the model."""
    figure = _figure(7, 1.7)
    axes = figure.subplots()
    axes.bar_label(_bars(axes, pairs), fmt="%.3f", padding=3)
    axes.set_xlabel("bits per byte, held-out documents")
    return _svg(figure)


def curves(models: list[dict[str, Any]]) -> str:
    """Training and validation loss over the steps, a panel a model."""
    models = [model for model in models if model["curve"]]
    columns = min(3, len(models))
    rows = -(-len(models) // columns)
    figure = _figure(3.2 * columns, 2.2 * rows)
    for axes, model in zip(figure.subplots(rows, columns, squeeze=False).flat, models, strict=False):
        steps = [point["step"] for point in model["curve"]]
        for key, style in (("train_loss_nats", "--"), ("validation_loss_nats", "-")):
            axes.plot(
                steps,
                [point[key] for point in model["curve"]],
                style,
                label=key.split("_")[0],
                color="#3b7a57",
            )
        axes.set_title(model["name"])
        axes.set_xlabel("step")
        axes.set_ylabel("loss, nats")
        axes.legend(frameon=False)
    for axes in list(figure.axes)[len(models) :]:
        axes.remove()
    return _svg(figure)


def costs(rows: list[dict[str, Any]]) -> str:
    """Seconds of every stage from its run record: work, and start-up, imports and hashing."""
    if not rows:
        return ""
    figure = _figure(8, 0.8 + 0.25 * len(rows))
    axes = figure.subplots()
    names = [row["stage"] for row in rows]
    work = [row.get("seconds_work", 0.0) for row in rows]
    rest = [max(0.0, row.get("seconds_total", 0.0) - w) for row, w in zip(rows, work, strict=True)]
    axes.barh(names, work, color="#3b7a57", label="work")
    axes.barh(names, rest, left=work, color="#c9b458", label="start-up, imports, hashing")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.legend(frameon=False)
    return _svg(figure)
