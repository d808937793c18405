"""HTML pages: the comparison of all models of the graph, costs, methods, and the scaling law.

`render` (scores against thresholds, curves, samples, errors, gates) is deterministic and belongs to the graph, as the
page of each model does (model_page.py); the other pages show times, memory and energy of the run records and lie
outside it.
"""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import files, integrity
from pipeline.baseline import BesideBaseline
from pipeline.config.params import Grid, Params, Report
from pipeline.data.personal import masked
from pipeline.paths import EVALUATION, REPORTS, TRAINING
from pipeline.reporting import energy, in_words, judgement_page, methods, plots
from pipeline.reporting.advice import Advice, advice, compared_with_best
from pipeline.reporting.claims import findings
from pipeline.reporting.methods import Cost, Method, lengths
from pipeline.reporting.rendering import page
from pipeline.reporting.wording import Words, load
from pipeline.tracking import lineage

# Scores that a model is compared by: all that rank methods, else the first of the rest that it has.
SCORES = (*methods.SCORES, "bits_per_byte_over_known", "bits_per_byte")


def render(params: Params) -> str:
    """The comparison page as HTML, from the models that params names."""
    words, models = load(params.report.language), all_models(params)
    gates = [gate for name in ("raw", "tokens", "samples") if (gate := _verdict(name))]
    known, compared = _known_bits(models, words), methods.methods(models)
    return page(
        "report.html",
        words,
        models=models,
        gates=gates,
        methods=compared,
        comparison=compared_with_best(compared),
        advice=advice(compared, words=words),
        experiments=findings(params.experiments, models),
        method_pictures=[plots.by_share(compared, words), plots.by_length(lengths(compared), words)],
        score_picture=plots.scores(models, words),
        curve_picture=plots.curves(models, words),
        bits_picture=plots.bits(known, words) if known else "",
        waivers=[waiver.model_dump() for waiver in params.waivers],
        judgement=judgement_page.FILE if judgement_page.learners(params) else "",
    )


def all_models(params: Params, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Every model of params.yaml, or those named, with metrics, training summary, curve, thresholds and verdict."""
    words = load(params.report.language)
    return [_model(name, params, words) for name in (params.evaluations if names is None else names)]


def render_which(
    compared: list[Method],
    costs: dict[str, Cost],
    advised: Advice | None,
    notes: str,
    words: Words | None = None,
) -> str:
    """The page of methods and their costs: advice, table, plots of the score.

    Args:
        compared: the methods, best first.
        costs: method -> cost of its training.
        advised: the advice; None: none can be given.
        notes: further sentences.
        words: of the page, in whose language advice and notes are; None: English.
    """
    words = words or load()
    pictures = [plots.by_time(compared, costs, words), plots.by_length(lengths(compared), words)]
    return page(
        "which.html",
        words,
        methods=compared,
        costs=costs,
        comparison=compared_with_best(compared),
        advice=advised,
        notes=notes,
        pictures=pictures,
    )


def render_scaling(
    trials: list[dict[str, float]],
    law: Callable[[float, float], float],
    sentences: list[str],
    words: Words | None = None,
) -> str:
    """The page of a scaling law: its findings in words, loss against tokens for every size, every trial.

    Args:
        trials: weights, tokens, flops, loss_nats and seconds of each trial.
        law: predicted loss for a number of weights and tokens.
        sentences: its findings.
        words: of the page, in whose language the sentences are; None: English.
    """
    words = words or load()
    picture = plots.scaling(trials, law, words)
    return page("scaling.html", words, trials=trials, law=law, sentences=sentences, picture=picture)


def render_costs(report: Report | None = None) -> str:
    """The page of costs: time, memory and energy of every stage, carbon where the grid is known, the model's score.

    Args:
        report: language and grid; None: English without carbon.
    """
    report = report or Report(language="en", grid=Grid(grams_per_kwh=None, source=None))
    words, rows = load(report.language), []
    for record in records():
        _, _, model = str(record["stage"]).partition("@")
        model = "base" if record["stage"] == "pretrain" else model
        scores = leading_scores(model) if record["stage"].startswith(("pretrain", "finetune", "merge")) else []
        rows.append(record | {"model": model, "score": scores[0] if scores else None, "how": energy.how(record)})
    total = sum(row.get("seconds_total", 0.0) for row in rows)
    said = energy.sentences(energy.of(rows), report.grid, words)
    return page("costs.html", words, rows=rows, total=total, sentences=said, picture=plots.costs(rows, words))


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


def made_by(name: str, params: Params, words: Words | None = None) -> str:
    """The parts of a model's recipe in a few words: `classify + lora`."""
    words = words or load()
    if merge := params.merge.get(name):
        return words("made.merge", rule=merge.rule.name, first=merge.first, second=merge.second)
    if (recipe := params.finetune.get(name)) is None:
        return words("made.open weights") if params.pretrain.task.name == "unchanged" else "next_token + full"
    plain = {"cross_entropy", "uniform", "shuffled"}  # the neutral part of each axis
    parts = [recipe.task, recipe.loss, recipe.tuner, recipe.weighting, recipe.ordering]
    names = " + ".join(part.name for part in parts if part.name not in plain)
    return words("made.blocks", parts=names, depth=recipe.depth) if recipe.depth else names


def _model(name: str, params: Params, words: Words) -> dict[str, Any]:
    folder = EVALUATION / name
    metrics = integrity.read_recorded(folder / "metrics.json", folder / "details.json")
    training = TRAINING / f"{name}.json"
    trained = integrity.read_recorded(training, training.with_suffix(".hashes.json"))
    recipe, verdict, parts = params.finetune.get(name), _verdict(name), made_by(name, params, words)
    return {
        "name": name,
        "parts": words("made.from", parts=parts, start=recipe.start) if recipe else parts,
        "metrics": metrics,
        "details": masked(integrity.read_json(folder / "details.json")),
        "training": trained,
        "trained_on": in_words.amount_of_training(trained, examples_of(name, params), words),
        "curve": [] if name in params.merge else _curve(name),
        "thresholds": _judged(metrics, params.evaluations[name].thresholds),
        "verdict": verdict,
        "warnings": warnings(verdict),
        "scores": [(score, value, in_words.interval(metrics, score, words)) for score, value in _leading(metrics)],
        "baseline": BesideBaseline.of(metrics),
        "beside_baseline": in_words.beside_baseline(metrics, words),
        "baseline_sentence": in_words.baseline_sentence(metrics, words),
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


def _known_bits(models: list[dict[str, Any]], words: Words) -> list[tuple[str, float]]:
    """Bits per byte of the base, of a perfect model and of a unigram model; empty where the entropy is unknown."""
    base: dict[str, float] = next((m["metrics"] for m in models if "bits_per_byte" in m["metrics"]), {})
    if "bits_per_byte_known" not in base:
        return []
    unigram = base["unigram_entropy_nats"] / 0.6931471805599453 / base["bytes_per_token"]
    return [
        (words("plot.perfect"), base["bits_per_byte_known"]),
        (words("plot.this"), base["bits_per_byte"]),
        (words("plot.unigram"), unigram),
    ]
