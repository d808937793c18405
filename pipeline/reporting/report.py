"""One page that compares all models of the graph: scores against thresholds, curves, samples, mistakes, gates.

`render` is deterministic and stands in the graph; `render_costs` adds times, memory and energy from the run records and
stands outside it. Pages are whole in one file: pictures are inline SVG, nothing is loaded from anywhere.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import files, integrity
from pipeline.config.params import Params
from pipeline.paths import REPORTS
from pipeline.reporting import methods, plots
from pipeline.reporting.claims import findings
from pipeline.reporting.methods import Cost, Method, advice, lengths
from pipeline.tracking import lineage

TEMPLATES = Path(__file__).parent / "pages"
# A model's leading scores, in the order they are looked for: all that rank methods, else the first of the rest.
SCORES = (*methods.SCORES, "bits_per_byte_over_known", "bits_per_byte")


def render(params: Params) -> str:
    """The comparison page as HTML, from the models that params names."""
    models = all_models(params)
    gates = [_verdict(name) for name in ("raw", "tokens", "samples")]
    known, found = _known_bits(models), methods.methods(models)
    return _page(
        "report.html",
        models=models,
        gates=[gate for gate in gates if gate],
        methods=found,
        advice=advice(found),
        experiments=findings(params.experiments, models),
        method_pictures=[plots.by_share(found), plots.by_length(lengths(found))],
        score_picture=plots.scores(models),
        curve_picture=plots.curves(models),
        bits_picture=plots.bits(known) if known else "",
        waivers=[waiver.model_dump() for waiver in params.waivers],
    )


def all_models(params: Params) -> list[dict[str, Any]]:
    """Every model that params names, with what was measured on it."""
    return [_model(name, params) for name in params.evaluations]


def render_which(found: list[Method], costs: dict[str, Cost], said: str) -> str:
    """The methods with their costs as a page: table, score against seconds with the spread over seeds, advice."""
    shown = [plots.by_time(found, costs), plots.by_length(lengths(found))]
    return _page("which.html", methods=found, costs=costs, said=said, pictures=shown)


def render_scaling(found: list[dict[str, float]], law: Callable[[float, float], float], said: list[str]) -> str:
    """A law as a page: what it says in words, loss against tokens for every size, every trial.

    Args:
        found: weights, tokens, flops, loss_nats and seconds of each trial.
        law: the loss that is foretold for weights and tokens.
    """
    return _page("scaling.html", found=found, law=law, said=said, picture=plots.scaling(found, law))


def render_costs() -> str:
    """The page of costs: time, memory and energy of every stage, and the score of its model."""
    rows = []
    for record in records():
        _, _, model = str(record["stage"]).partition("@")
        model = "base" if record["stage"] == "pretrain" else model
        scores = leading_scores(model) if record["stage"].startswith(("pretrain", "finetune", "merge")) else []
        rows.append(record | {"model": model, "score": scores[0] if scores else None})
    total = sum(row.get("seconds_total", 0.0) for row in rows)
    return _page("costs.html", rows=rows, total=total, picture=plots.costs(rows))


def records(folder: Path = REPORTS / "runs") -> list[dict[str, Any]]:
    """The run record of every stage, in the order of the graph; those of stages that are gone come last."""
    places = {stage: place for place, stage in enumerate(lineage.stage_order())}
    found = [files.read_json(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda record: places.get(record["stage"], len(places)))


def leading_scores(model: str) -> list[tuple[str, float]]:
    """What a model is compared by, with the values: one score or several; none before it is measured."""
    path = REPORTS / "evaluation" / model / "metrics.json"
    return _leading(integrity.read_recorded(path, path.with_name("details.json"))) if path.exists() else []


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
    metrics = integrity.read_recorded(folder / "metrics.json", folder / "details.json")
    training = REPORTS / "training" / f"{name}.json"
    recipe = params.finetune.get(name)
    return {
        "name": name,
        "parts": made_by(name, params) + (f", from {recipe.start}" if recipe else ""),
        "metrics": metrics,
        "details": integrity.read_json(folder / "details.json"),
        "training": integrity.read_recorded(training, training.with_suffix(".hashes.json")),
        "curve": [] if name in params.merge else _curve(name),
        "thresholds": _judged(metrics, params.evaluations[name].thresholds),
        "verdict": _verdict(name),
        "scores": _leading(metrics),
    }


def _leading(metrics: dict[str, float]) -> list[tuple[str, float]]:
    found = [(key, metrics[key]) for key in SCORES if key in metrics]
    return [score for score in found if score[0] in methods.SCORES] or found[:1]


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
    return integrity.read_json(path) | {"name": name} if path.exists() else None


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
