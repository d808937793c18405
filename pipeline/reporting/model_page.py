"""The page of one model: what it is, how it compares, where it is worst, its risks, samples, curve, lineage, costs.

Two readers, one template. Stage report writes a page per model into the graph (reports/models): deterministic, beside
its parent and its baseline, without costs, which differ from run to run. `tohum review MODEL --page` writes one outside
the graph (reports/review) with what a registered candidate has besides: the champion, the policy's result, the costs.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline import comparison, files, integrity, outcomes
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import EVALUATION, MODEL_PAGES, PROVENANCE
from pipeline.reporting import (
    answers_beside,
    energy,
    in_words,
    judgement_page,
    lineage_picture,
    model_slices,
    plots,
    report,
    risks,
    rules,
)
from pipeline.reporting.rendering import page
from pipeline.reporting.risks import Risk
from pipeline.reporting.wording import Words, load

SHOWN = 8
"""Rows of a long table that are shown at once; the others are in a list to open."""


class Review(NamedTuple):
    """What a review knows of a candidate besides the files of the graph."""

    policy: Mapping[str, Any]
    """Result of the policy as plain JSON: outcome, rules, comparisons, slices, risks (pipeline.registry.policy)."""
    champion: str | None
    """`version 3`; None: there is no champion."""
    version: str
    """Version of the candidate."""
    sha256: str
    """version_sha256, which approval names."""
    command: str
    """The command that approves it."""
    shadow: Mapping[str, Any] | None = None
    """Candidate and champion replayed over consented requests (pipeline.registry.shadow); None: there are none."""


def write(params: Params) -> None:
    """Writes the page of every model into reports/models, which is replaced as a whole."""
    models = {model["name"]: model for model in report.all_models(params)}
    with files.replace_folder(MODEL_PAGES) as temporary:
        for name in models:
            files.write_text(temporary / f"{name}.html", render(name, params, models))
        if judgement_page.learners(params):
            files.write_text(temporary / judgement_page.FILE, judgement_page.render(params, models))


def render(
    name: str, params: Params, models: Mapping[str, Mapping[str, Any]] | None = None, review: Review | None = None
) -> str:
    """The page of a model as HTML.

    Args:
        name: the model.
        params: names the models, their recipes, and the language.
        models: the report's models by name; None: this model and its ancestors are read.
        review: of a registered candidate; None: the page of the graph.

    Raises:
        UserError: no such model, or a damaged file.
    """
    words = load(params.report.language)
    if name not in params.evaluations:
        raise UserError(f"{name}: not a model of params.yaml; one of: {', '.join(params.evaluations)}")
    models = models or {model["name"]: model for model in report.all_models(params, params.lineage(name))}
    model, parent = models[name], _parent(name, params)
    table = outcomes.read(EVALUATION / name / "outcomes.parquet")
    judged = _risks(model["metrics"], params, review)
    boxes = lineage_picture.boxes(name, params, models, _sources(), words)
    return page(
        "model.html",
        words,
        model=model,
        kind=_kind(name, params, words),
        what=_what(name, params, model, words),
        score=_headline(model, table, words),
        parent=parent,
        review=review,
        compared=_beside(parent, table, review),
        has_outcomes=len(table) > 0,
        groups=model_slices.groups(table, review.policy if review else None, words),
        rules=[(rule["state"], rules.name(rule, words), rules.sentence(rule, words)) for rule in _rules(review)],
        risks=[(risk, risks.picture(risk, words, risks.doses().get(risk.metric))) for risk in judged],
        doses={risk.metric: risks.doses()[risk.metric] for risk in judged if risk.metric in risks.doses()},
        has_thresholds=bool(judged),
        samples=answers_beside.samples(model, models.get(parent or "")),
        asked=answers_beside.asked(model, models.get(parent or "")),
        written=model["details"].get("generation", {}).get("samples", []),
        written_by_parent=models[parent]["details"].get("generation", {}).get("samples", []) if parent else [],
        curve=plots.curves([dict(model)], words),
        lineage=lineage_picture.svg(boxes, words("lineage.title", name=name)),
        boxes=boxes,
        waived=_waived(model["verdict"]),
        costs=_costs(name, params) if review else [],
        cost_sentences=_cost_sentences(name, params, words) if review else [],
        shown=SHOWN,
    )


def _parent(name: str, params: Params) -> str | None:
    """The model that it was trained from; of a merge the one that both were tuned from; None for the base."""
    if name in params.merge:
        return params.merge[name].of
    return params.finetune[name].start if name in params.finetune else None


def _sources() -> dict[str, dict[str, Any]]:
    """Provenance of every source; empty before the download."""
    integrity.require_intact(PROVENANCE)
    return dict(files.read_json(PROVENANCE)["sources"]) if PROVENANCE.is_file() else {}


def _kind(name: str, params: Params, words: Words) -> str:
    """The kind of model in words."""
    if name in params.merge:
        return words("kind.merge")
    recipe = params.finetune.get(name) or params.pretrain
    return words(f"kind.{recipe.task.name}") if words.has(f"kind.{recipe.task.name}") else recipe.task.name


def _what(name: str, params: Params, model: Mapping[str, Any], words: Words) -> list[str]:
    """What the model is, in sentences."""
    training, amount = model["training"], model["trained_on"]
    known = {"kind": _kind(name, params, words), "parameters": words.integer(training["parameters"])}
    if name in params.merge:
        return [words("model.is merged", parts=model["parts"], **known)]
    if params.pretrain.task.name == "unchanged" and name == "base":
        return [words("model.is unchanged", **known)]
    short = "" if amount else " short"
    if name == "base":
        fresh = params.pretrain.start.kind == "scratch"
        said = [words(f"model.is base{short}" if fresh else "model.is base of open weights", amount=amount, **known)]
    else:
        trained = words.integer(training["trainable_parameters"])
        said = [
            words(f"model.is trained{short}", start=params.finetune[name].start, trained=trained, amount=amount,
                  parts=report.made_by(name, params, words), **known)
        ]  # fmt: skip
    if "epsilon" in training:
        delta = words.general(training["delta"], 1)
        said.append(words("model.kept private", epsilon=words.number(training["epsilon"], 2), delta=delta))
    return said


def _headline(model: Mapping[str, Any], table: Any, words: Words) -> dict[str, Any] | None:
    """The first score with its interval and records; None for a model without any."""
    if not model["scores"]:
        return None
    metric, value, _ = model["scores"][0]
    bounds = in_words.interval_bounds(model["metrics"], metric)
    n = in_words.held_out_records(model["metrics"], metric)
    for (_, name), rows in outcomes.by_metric(table).items():
        if name == metric and bounds is None:
            _, low, high = outcomes.mean_interval(outcomes.values_of(rows))
            bounds, n = (low, high), len(rows)
    digits = 1 if abs(value) >= 10 else 3
    return {
        "metric": words.metric(metric), "name": metric, "value": words.number(value, digits), "records": n,
        "interval": words.interval(*bounds, digits) if bounds and all(map(math.isfinite, bounds)) else "",
    }  # fmt: skip


def _beside(parent: str | None, table: Any, review: Review | None) -> list[model_slices.Beside]:
    """This model beside the champion (review), or beside its parent; empty where nothing can be compared."""
    if review is not None:
        return model_slices.beside(review.policy["comparisons"])
    theirs = outcomes.read(EVALUATION / parent / "outcomes.parquet") if parent else table.slice(0, 0)
    return model_slices.beside(vars(one) for one in comparison.compare(table, theirs))


def _risks(metrics: Mapping[str, float], params: Params, review: Review | None) -> list[Risk]:
    """The risks that the policy judges: as the review computed them, else from the thresholds in params.yaml."""
    if review is not None:
        return risks.worst_first(Risk(**{key: row[key] for key in Risk._fields}) for row in review.policy["risks"])
    return risks.judged(metrics, params.review.policy.risks)


def _rules(review: Review | None) -> list[Mapping[str, Any]]:
    return list(review.policy["rules"]) if review else []


def _waived(verdict: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return [result for result in (verdict or {}).get("results", []) if result.get("waiver")]


def _costs(name: str, params: Params) -> list[dict[str, Any]]:
    """Run records of the stages that led to the model, with what is known of their energy."""
    stages = {"download", "tokenize", "sample"}
    for model in params.lineage(name):
        stages |= {f"finetune@{model}", f"merge@{model}", f"evaluate@{model}"} | (
            {"pretrain"} if model == "base" else set()
        )
    return [record | {"how": energy.how(record)} for record in report.records() if record["stage"] in stages]


def _cost_sentences(name: str, params: Params, words: Words) -> list[str]:
    return energy.sentences(energy.of(_costs(name, params)), params.report.grid, words)
