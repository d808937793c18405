"""One page that compares all models of the graph: scores against thresholds, curves, samples, mistakes, gates.

`render` is deterministic and stands in the graph; `render_costs` adds times, memory and energy from the run records and
stands outside it. Pages are whole in one file: pictures are inline SVG, nothing is loaded from anywhere.
"""

import csv
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import files
from pipeline.config import Params
from pipeline.experiments import findings
from pipeline.methods import Cost, Method, advice, lengths, methods

REPORTS = Path("reports")
TEMPLATES = Path(__file__).parent / "pages"
# A model's leading scores, in the order they are looked for: all of RANKED and chrf that it has, else the first of the
# rest.
RANKED = ("accuracy", "exact_match")
SCORES = (*RANKED, "chrf", "bits_per_byte_over_known", "bits_per_byte")


def render(params: Params) -> str:
    """The comparison page as HTML, from the models that params names."""
    models = all_models(params)
    gates = [_verdict(name) for name in ("raw", "tokens", "samples")]
    known, found = _known_bits(models), methods(models)
    return _page(
        "report.html",
        models=models,
        gates=[gate for gate in gates if gate],
        methods=found,
        advice=advice(found),
        experiments=findings(params.experiments, models),
        method_pictures=[_method_picture(found), _length_picture(lengths(found))],
        score_picture=_score_picture(models),
        curve_picture=_curve_picture(models),
        bits_picture=_bits_picture(known) if known else "",
        waivers=[waiver.model_dump() for waiver in params.waivers],
    )


def all_models(params: Params) -> list[dict[str, Any]]:
    """Every model that params names, with what was measured on it."""
    return [_model(name, params) for name in params.evaluations]


def render_which(found: list[Method], costs: dict[str, Cost], said: str) -> str:
    """The methods with their costs as a page: table, score against seconds with the spread over seeds, advice."""
    pictures = [_time_picture(found, costs), _length_picture(lengths(found))]
    return _page("which.html", methods=found, costs=costs, said=said, pictures=pictures)


def render_costs(params: Params) -> str:
    """The page of costs: what every stage took, beside what its model scored."""
    rows = []
    for path in sorted((REPORTS / "runs").glob("*.json")):
        record = files.read_json(path)
        _, _, model = str(record["stage"]).partition("@")
        model = "base" if record["stage"] == "pretrain" else model
        scores = leading_scores(model) if record["stage"].startswith(("pretrain", "finetune", "merge")) else []
        rows.append(record | {"model": model, "score": scores[0] if scores else None})
    total = sum(row.get("seconds_total", 0.0) for row in rows)
    return _page("costs.html", rows=rows, total=total, picture=_cost_picture(rows))


def leading_scores(model: str) -> list[tuple[str, float]]:
    """What a model is compared by, with the values: one score, or several of a merge; none before it is measured."""
    path = REPORTS / "evaluation" / model / "metrics.json"
    return _leading(files.read_json(path)) if path.exists() else []


def made_by(name: str, params: Params) -> str:
    """What made a model, in a few words."""
    if merge := params.merge.get(name):
        return f"{merge.rule.name} merge of {merge.first} and {merge.second}"
    if (recipe := params.finetune.get(name)) is None:
        return "next_token + full"
    plain = {"none", "uniform", "shuffled"}  # parts that do nothing of their own
    parts = [recipe.objective, recipe.auxiliary, recipe.tuner, recipe.weighting, recipe.ordering]
    found = " + ".join(part.name for part in parts if part.name not in plain)
    return found + (f", {recipe.depth} blocks" if recipe.depth else "")


def _model(name: str, params: Params) -> dict[str, Any]:
    folder = REPORTS / "evaluation" / name
    metrics = files.read_json(folder / "metrics.json")
    recipe = params.finetune.get(name)
    return {
        "name": name,
        "parts": made_by(name, params) + (f", from {recipe.start}" if recipe else ""),
        "metrics": metrics,
        "details": files.read_json(folder / "details.json"),
        "training": files.read_json(REPORTS / "training" / f"{name}.json"),
        "curve": [] if name in params.merge else _curve(name),
        "thresholds": _judged(metrics, params.evaluations[name].thresholds),
        "verdict": _verdict(name),
        "leading": next(iter(_leading(metrics)), None),
        "scores": _leading(metrics),
    }


def _leading(metrics: dict[str, float]) -> list[tuple[str, float]]:
    found = [(key, metrics[key]) for key in SCORES if key in metrics]
    return [score for score in found if score[0] in (*RANKED, "chrf")] or found[:1]


def _judged(metrics: dict[str, float], thresholds: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for metric, bound in thresholds.items():
        value = metrics.get(metric)
        low, high = bound.at_least, bound.at_most
        passed = value is not None and (low is None or value >= low) and (high is None or value <= high)
        rows.append({"metric": metric, "value": value, "at_least": low, "at_most": high, "passed": passed})
    return rows


def _verdict(name: str) -> dict[str, Any] | None:
    path = REPORTS / "gates" / name / "verdict.json"
    return files.read_json(path) | {"name": name} if path.exists() else None


def _curve(name: str) -> list[dict[str, float]]:
    with (REPORTS / "training" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _known_bits(models: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Bits per byte of the base beside what a perfect model and a unigram model need; empty where unknown."""
    base: dict[str, float] = next((m["metrics"] for m in models if "bits_per_byte" in m["metrics"]), {})
    if "bits_per_byte_known" not in base:
        return []
    unigram = base["unigram_entropy_nats"] / 0.6931471805599453 / base["bytes_per_token"]
    return [
        ("perfect model", base["bits_per_byte_known"]),
        ("this model", base["bits_per_byte"]),
        ("unigram model", unigram),
    ]


def _page(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def _figure(width: float, height: float) -> Any:
    """A matplotlib figure whose SVG is the same bytes in every process."""
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


def _bars(axes: Any, pairs: list[tuple[str, float]], form: str) -> None:
    names = [name for name, _ in pairs]
    bars = axes.barh(names, [value for _, value in pairs], color="#3b7a57")
    axes.bar_label(bars, fmt=form, padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)


def _score_picture(models: list[dict[str, Any]]) -> str:
    pairs = [
        (m["name"] if len(m["scores"]) == 1 else f"{m['name']}: {key}", value)
        for m in models
        for key, value in m["scores"]
        if key in RANKED
    ]
    if not pairs:
        return ""
    figure = _figure(7, 0.6 + 0.35 * len(pairs))
    axes = figure.subplots()
    _bars(axes, pairs, "%.3f")
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("accuracy or exact match, held-out records")
    return _svg(figure)


def _time_picture(found: list[Method], costs: dict[str, Cost]) -> str:
    """Score against the seconds that training took, with the spread over seeds."""
    return _points([(costs[m.name].seconds, m) for m in found if m.name in costs], "seconds of training, log scale")


def _method_picture(found: list[Method]) -> str:
    """Score against the share of the weights that was trained, with the spread over seeds; none where all have one."""
    if len({m.trained_share for m in found}) < 2:
        return ""
    return _points([(100 * m.trained_share, m) for m in found], "% of the weights trained, log scale")


def _points(points: list[tuple[float, Method]], label: str) -> str:
    """Methods by a cost and their score, with the spread over seeds; only those of the first one's score."""
    if not points:
        return ""
    score = points[0][1].score
    figure = _figure(7, 3.2)
    axes = figure.subplots()
    for cost, method in [(cost, method) for cost, method in points if method.score == score]:
        axes.errorbar(cost, method.mean, yerr=method.spread, fmt="o", color="#3b7a57", capsize=3)
        axes.annotate(method.name, (cost, method.mean), textcoords="offset points", xytext=(5, 4))
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel(f"{score}, held-out")
    return _svg(figure)


def _length_picture(families: dict[str, list[tuple[int, Method]]]) -> str:
    """Score against the number of virtual tokens, a line a family, with the spread over seeds."""
    if not families:
        return ""
    figure = _figure(7, 3.2)
    axes = figure.subplots()
    for name, family in families.items():
        axes.errorbar(
            [length for length, _ in family], [method.mean for _, method in family],
            yerr=[method.spread for _, method in family], marker="o", capsize=3, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("virtual tokens, log scale")
    axes.set_ylabel(f"{next(iter(families.values()))[0][1].score}, held-out")
    axes.legend()
    return _svg(figure)


def _bits_picture(pairs: list[tuple[str, float]]) -> str:
    figure = _figure(7, 1.7)
    axes = figure.subplots()
    _bars(axes, pairs, "%.3f")
    axes.set_xlabel("bits per byte, held-out documents")
    return _svg(figure)


def _curve_picture(models: list[dict[str, Any]]) -> str:
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


def _cost_picture(rows: list[dict[str, Any]]) -> str:
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
