"""HTML pages: the comparison of all models of the graph, costs, methods, and the scaling law.

`render` (scores against thresholds, curves, samples, errors, gates) is deterministic and belongs to the graph; the
other pages show times, memory and energy of the run records and lie outside it. Each page is one file: plots are inline
SVG, and nothing is loaded from elsewhere.
"""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import files, integrity
from pipeline.baseline import BesideBaseline
from pipeline.config.params import Params
from pipeline.paths import EVALUATION, REPORTS, TRAINING
from pipeline.reporting import in_words, methods, plots
from pipeline.reporting.advice import Advice, Comparison, advice, compared_with_best
from pipeline.reporting.claims import findings
from pipeline.reporting.methods import Cost, Method, lengths
from pipeline.tracking import lineage

TEMPLATES = Path(__file__).parent / "pages"
# Scores that a model is compared by: all that rank methods, else the first of the rest that it has.
SCORES = (*methods.SCORES, "bits_per_byte_over_known", "bits_per_byte")


def render(params: Params) -> str:
    """The comparison page as HTML, from the models that params names."""
    models = all_models(params)
    gates = [_verdict(name) for name in ("raw", "tokens", "samples")]
    known, compared = _known_bits(models), methods.methods(models)
    return _page(
        "report.html",
        models=models,
        gates=[gate for gate in gates if gate],
        methods=compared,
        comparison=compared_with_best(compared),
        advice=advice(compared),
        experiments=findings(params.experiments, models),
        method_pictures=[plots.by_share(compared), plots.by_length(lengths(compared))],
        score_picture=plots.scores(models),
        curve_picture=plots.curves(models),
        bits_picture=plots.bits(known) if known else "",
        waivers=[waiver.model_dump() for waiver in params.waivers],
    )


def all_models(params: Params) -> list[dict[str, Any]]:
    """Every model of params.yaml with its metrics, training summary, curve, thresholds and verdict."""
    return [_model(name, params) for name in params.evaluations]


def render_which(
    compared: list[Method], costs: dict[str, Cost], comparison: Comparison | None, advised: Advice | None, notes: str
) -> str:
    """The page of methods and their costs: advice, table, plots of the score.

    Args:
        compared: the methods, best first.
        costs: method -> cost of its training.
        comparison: the methods beside the best and the baseline.
        advised: the advice; None: none can be given.
        notes: further sentences.
    """
    pictures = [plots.by_time(compared, costs), plots.by_length(lengths(compared))]
    return _page(
        "which.html",
        methods=compared,
        costs=costs,
        comparison=comparison,
        advice=advised,
        notes=notes,
        pictures=pictures,
    )


def render_scaling(trials: list[dict[str, float]], law: Callable[[float, float], float], sentences: list[str]) -> str:
    """The page of a scaling law: its findings in words, loss against tokens for every size, every trial.

    Args:
        trials: weights, tokens, flops, loss_nats and seconds of each trial.
        law: predicted loss for a number of weights and tokens.
        sentences: its findings.
    """
    return _page("scaling.html", trials=trials, law=law, sentences=sentences, picture=plots.scaling(trials, law))


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
    """The run record of every stage, in the order of the graph; records of removed stages come last."""
    order = {stage: number for number, stage in enumerate(lineage.stage_order())}
    by_name = [files.read_json(path) for path in sorted(folder.glob("*.json"))]
    return sorted(by_name, key=lambda record: order.get(record["stage"], len(order)))


def leading_scores(model: str) -> list[tuple[str, float]]:
    """Scores that a model is compared by, with their values; empty before it is evaluated."""
    return _leading(_metrics(model))


class Summary(NamedTuple):
    """One model in a few words, for the table of `tohum scores`."""

    made_by: str
    trained_on: str
    """`0.2 epochs of 9,599 records`; empty where it is not known."""
    scores: list[tuple[str, float]]
    """Scores that it is compared by; empty before it is evaluated."""
    baseline: BesideBaseline | None
    """The model and the baseline on the same records; None where that was not measured."""


def summary(name: str, params: Params) -> Summary:
    """One model in a few words, from the files of the graph that exist."""
    metrics, training = _metrics(name), TRAINING / f"{name}.json"
    trained = integrity.read_recorded(training, training.with_suffix(".hashes.json")) if training.exists() else {}
    trained_on = in_words.amount_of_training(trained, examples_of(name, params))
    return Summary(made_by(name, params), trained_on, _leading(metrics), BesideBaseline.of(metrics))


def _metrics(model: str) -> dict[str, float]:
    """Metrics of a model; empty before it is evaluated."""
    path = EVALUATION / model / "metrics.json"
    return integrity.read_recorded(path, path.with_name("details.json")) if path.exists() else {}


def examples_of(name: str, params: Params) -> str:
    """A model's training examples: records, or windows of documents."""
    recipe = params.finetune.get(name)
    return "windows" if recipe is None or recipe.data == "documents" else "records"


def made_by(name: str, params: Params) -> str:
    """The parts of a model's recipe in a few words: `classify + lora`."""
    if merge := params.merge.get(name):
        return f"{merge.rule.name} merge of {merge.first} and {merge.second}"
    if (recipe := params.finetune.get(name)) is None:
        return "open weights" if params.pretrain.task.name == "unchanged" else "next_token + full"
    plain = {"cross_entropy", "uniform", "shuffled"}  # the neutral part of each axis
    parts = [recipe.task, recipe.loss, recipe.tuner, recipe.weighting, recipe.ordering]
    names = " + ".join(part.name for part in parts if part.name not in plain)
    return names + (f", {recipe.depth} blocks" if recipe.depth else "")


def _model(name: str, params: Params) -> dict[str, Any]:
    folder = EVALUATION / name
    metrics = integrity.read_recorded(folder / "metrics.json", folder / "details.json")
    training = TRAINING / f"{name}.json"
    trained = integrity.read_recorded(training, training.with_suffix(".hashes.json"))
    recipe, verdict = params.finetune.get(name), _verdict(name)
    return {
        "name": name,
        "parts": made_by(name, params) + (f", from {recipe.start}" if recipe else ""),
        "metrics": metrics,
        "details": integrity.read_json(folder / "details.json"),
        "training": trained,
        "trained_on": in_words.amount_of_training(trained, examples_of(name, params)),
        "curve": [] if name in params.merge else _curve(name),
        "thresholds": _judged(metrics, params.evaluations[name].thresholds),
        "verdict": verdict,
        "warnings": warnings(verdict),
        "scores": [(score, value, in_words.interval(metrics, score)) for score, value in _leading(metrics)],
        "baseline": BesideBaseline.of(metrics),
    }


def _leading(metrics: dict[str, float]) -> list[tuple[str, float]]:
    scores = [(key, metrics[key]) for key in SCORES if key in metrics]
    return [score for score in scores if score[0] in methods.SCORES] or scores[:1]


def _judged(metrics: dict[str, float], thresholds: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for metric, bound in thresholds.items():
        value = metrics.get(metric)
        low, high = bound.at_least, bound.at_most
        passed = value is not None and (low is None or value >= low) and (high is None or value <= high)
        rows.append({"metric": metric, "value": value, "at_least": low, "at_most": high, "passed": passed})
    return rows


def warnings(verdict: dict[str, Any] | None) -> int:
    """Expectations of a gate that failed without blocking, and are not waived; 0 before the gate ran."""
    results = verdict["results"] if verdict else []
    return sum(
        not (result["success"] or result.get("waived")) and result.get("severity") == "warning" for result in results
    )


def _verdict(name: str) -> dict[str, Any] | None:
    path = REPORTS / "gates" / name / "verdict.json"
    return integrity.read_json(path) | {"name": name} if path.exists() else None


def _curve(name: str) -> list[dict[str, float]]:
    with (TRAINING / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _known_bits(models: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Bits per byte of the base, of a perfect model and of a unigram model; empty where the entropy is unknown."""
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
