"""The page of one model: what it is, how it compares, where it is worst, its risks, samples, curve, lineage, costs.

Two readers, one template. Stage report writes a page per model into the graph (reports/models): deterministic, beside
its parent and its baseline, without costs, which differ from run to run. `tohum review MODEL --page` writes one outside
the graph (reports/review) with what a registered candidate has besides: the champion, the policy's result, the costs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline import comparison, files, integrity, outcomes
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import EVALUATION, MODEL_PAGES, PROVENANCE
from pipeline.reporting import energy, in_words, lineage_picture, plots, report, risks, rules
from pipeline.reporting.in_words import dimension_in_words
from pipeline.reporting.rendering import page
from pipeline.reporting.risks import Risk, whisker
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


class Compared(NamedTuple):
    """A row of a comparison: this model beside another one."""

    metric: str
    candidate: float
    champion: float
    difference: float
    low: float
    high: float
    verdict: str
    records: int
    clusters: int
    detectable: float
    picture: str


class Group(NamedTuple):
    """A row of the worst slices."""

    metric: str
    shown: str
    """`language: tr`."""
    value: float
    low: float
    high: float
    records: int
    champion: float | None
    verdict: str
    """Against the champion; empty on the graph's page."""
    picture: str


class Sample(NamedTuple):
    """One question with its answers."""

    question: str
    expected: str
    answer: str
    right: bool
    parent: str | None
    """The parent's answer; None where it was not asked."""
    parent_right: bool


def write(params: Params) -> None:
    """Writes the page of every model into reports/models, which is replaced as a whole."""
    models = {model["name"]: model for model in report.all_models(params)}
    with files.replace_folder(MODEL_PAGES) as temporary:
        for name in models:
            files.write_text(temporary / f"{name}.html", render(name, params, models))


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
        compared=_compared(parent, table, review),
        has_outcomes=len(table) > 0,
        groups=_groups(table, review, words),
        rules=[(rule["state"], rules.name(rule, words), rules.sentence(rule, words)) for rule in _rules(review)],
        risks=[(risk, risks.picture(risk, words, risks.doses().get(risk.metric))) for risk in judged],
        doses={risk.metric: risks.doses()[risk.metric] for risk in judged if risk.metric in risks.doses()},
        has_thresholds=bool(judged),
        samples=_samples(model, models.get(parent or "")),
        asked=_asked(model, models.get(parent or "")),
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


def _compared(parent: str | None, table: Any, review: Review | None) -> list[Compared]:
    """This model beside the champion (review), or beside its parent; empty where nothing can be compared."""
    rows: Iterable[Mapping[str, Any]]
    if review is not None:
        rows = review.policy["comparisons"]
    else:
        theirs = outcomes.read(EVALUATION / parent / "outcomes.parquet") if parent else table.slice(0, 0)
        rows = [vars(one) for one in comparison.compare(table, theirs)]
    return [
        Compared(
            **{key: row[key] for key in Compared._fields if key != "picture"},
            picture=whisker(row["low"], row["difference"], row["high"], _around_zero(row["low"], row["high"])),
        )
        for row in rows
    ]


def _around_zero(low: float, high: float) -> tuple[float, float]:
    most = max(abs(low), abs(high)) or 1.0
    return -most, most


def _groups(table: Any, review: Review | None, words: Words) -> list[Group]:
    """Slices: beside the champion the largest losses first, else the worst of each metric first."""
    if review is not None and any(row["champion"] is not None for row in review.policy["slices"]):
        return [
            Group(
                row["metric"], dimension_in_words(row["dimension"], row["value"], words), row["candidate"], row["low"],
                row["high"], row["records"], row["champion"], row["verdict"],
                whisker(row["low"], row["candidate"] - row["champion"], row["high"],
                        _around_zero(row["low"], row["high"])),
            )
            for row in review.policy["slices"]
        ]  # fmt: skip
    by_metric: dict[tuple[str, str], list[outcomes.Slice]] = {}
    for one in outcomes.slices(table):
        by_metric.setdefault((one.measure, one.metric), []).append(one)
    groups: list[list[Group]] = []
    for (_, metric), own in by_metric.items():
        span = min(one.low for one in own), max(one.high for one in own)
        own.sort(key=lambda one: one.mean, reverse=outcomes.lower_is_better(metric))
        groups.append([
            Group(metric, dimension_in_words(one.dimension, one.value, words), one.mean, one.low, one.high, one.records,
                  None, "", whisker(one.low, one.mean, one.high, span))
            for one in own
        ])  # fmt: skip
    return _alternating(groups)


def _alternating(by_metric: Sequence[Sequence[Group]]) -> list[Group]:
    """The worst group of every metric, then the next of every metric, and so on."""
    longest = max(map(len, by_metric), default=0)
    return [own[place] for place in range(longest) for own in by_metric if place < len(own)]


def _risks(metrics: Mapping[str, float], params: Params, review: Review | None) -> list[Risk]:
    """The risks that the policy judges: as the review computed them, else from the thresholds in params.yaml."""
    if review is not None:
        return risks.worst_first(Risk(**{key: row[key] for key in Risk._fields}) for row in review.policy["risks"])
    return risks.judged(metrics, params.review.policy.risks)


def _rules(review: Review | None) -> list[Mapping[str, Any]]:
    return list(review.policy["rules"]) if review else []


def _answers(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Answers to instructions that its measures kept."""
    return [
        answer
        for measured in model["details"].values()
        if isinstance(measured, dict)
        for answer in measured.get("answers", [])
        if isinstance(answer, dict) and {"instruction", "expected", "answer", "right"} <= answer.keys()
    ]


def _asked(model: Mapping[str, Any], parent: Mapping[str, Any] | None) -> str:
    """Whether the parent's answers can stand beside this model's: `both`, `other` (questions), `no` or `alone`."""
    if parent is None or not _answers(model):
        return "alone"
    theirs = {_question(answer) for answer in _answers(parent)}
    if not theirs:
        return "no"
    return "both" if any(_question(answer) in theirs for answer in _answers(model)) else "other"


def _samples(model: Mapping[str, Any], parent: Mapping[str, Any] | None) -> list[Sample]:
    """Questions with this model's answer, the expected one, and the parent's where it was asked the same."""
    theirs = {_question(answer): answer for answer in _answers(parent)} if parent else {}
    rows = [
        Sample(
            _question(answer), str(answer["expected"]), str(answer["answer"]), bool(answer["right"]),
            str(other["answer"]) if (other := theirs.get(_question(answer))) else None,
            bool(other and other["right"]),
        )
        for answer in _answers(model)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.parent is None, row.right))


def _question(answer: Mapping[str, Any]) -> str:
    return "\n".join(filter(None, (str(answer["instruction"]), str(answer.get("input") or ""))))


def _waived(verdict: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return [result for result in (verdict or {}).get("results", []) if result.get("waived") and "waiver" in result]


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
