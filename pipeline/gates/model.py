"""Gate on a model: the expectations on its evaluation's metrics before it may be registered.

Every metric is finite, the model beats its baseline (a unigram model, or TF-IDF with logistic regression), generation
is not degenerate, and the model's own thresholds hold. A model that fails is kept out of the registry; the graph goes
on.
"""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline import integrity
from pipeline.baseline import BesideBaseline, beside
from pipeline.config.params import Bound
from pipeline.config.section import Section, Share
from pipeline.errors import UserError
from pipeline.gates._rules import (
    Condition,
    Expectation,
    Frame,
    Row,
    at_least,
    at_most,
    measured,
    suite,
    warning,
    within,
    zero,
)
from pipeline.gates._wording import Said
from pipeline.significance import ERROR_RATE


class Baseline(Section):
    """gates.model.baseline: consequence for a model that does not beat its baseline, by the records it is measured on.

    block: it cannot be registered; warn: a warning in its verdict; ignore: none.
    """

    documents: Literal["block", "warn", "ignore"]
    """A language model whose loss is not below the unigram entropy of its test text."""
    labelled: Literal["block", "warn", "ignore"]
    """A classifier that is not right significantly more often than TF-IDF with logistic regression, on the same records
    (McNemar's exact test, 5 % with both directions), or a regression that is not closer more often than TF-IDF with
    ridge regression (sign test)."""


class Settings(Section):
    """gates.model: the bounds shared by all models; a model's own ones are evaluations.<model>.thresholds."""

    min_distinct_2: Share
    """Share of different token pairs in its samples (Li et al. 2016); near 0 for a model that loops."""
    max_repetition_share: Share
    """Share of its samples' tokens that equal the token before."""
    max_empty_share: Share
    """Share of samples or answers without a token."""
    baseline: Baseline
    """Consequence for a model that does not beat its baseline."""


NO_GAIN = "a model no better than its baseline has such results with a probability of {chance_of_no_gain}"
UNIGRAM = "the loss is {loss_nats} nats per token, the entropy of single tokens {unigram_entropy_nats}"
# Frame, column, condition (with the setting below gates.model that holds the bound), condition in words.
GENERATION: list[Row] = [
    ("scores", "distinct_2", at_least("min_distinct_2"), "generation is not degenerate"),
    ("scores", "repetition_share", at_most("max_repetition_share"), "generation is not degenerate"),
    ("scores", "empty_share", at_most("max_empty_share"), "generation is not degenerate"),
]


def profile(evaluation: Path, thresholds: Mapping[str, Bound]) -> dict[str, Frame]:
    """Profile tables of `<evaluation>/metrics.json`: a row per metric, a column per metric, and the baselines.

    Raises:
        UserError: no metrics.json, or it is no flat table of numbers.
    """
    metrics = _read(evaluation / "metrics.json")
    finite = Frame(("metric",), ("value", "finite"), nullable=True)
    for name, value in sorted(metrics.items()):
        finite.add({"metric": name, "value": value, "finite": int(math.isfinite(value))})
    names = sorted({*metrics, *thresholds})
    scores = Frame((), tuple(names), nullable=True)
    scores.add({name: metrics.get(name) for name in names})
    return {"metrics": finite, "scores": scores, "entropy": _entropy(metrics), "baseline": _baseline(metrics)}


def expectations(
    settings: Settings, name: str, thresholds: Mapping[str, Bound], frames: Mapping[str, Frame]
) -> list[Expectation]:
    """The expectations on `profile`'s frames for the model `name`.

    A threshold replaces the shared bound on its metric, and fails where the metric was not measured.
    """
    scores = {metric for metric, value in frames["scores"].rows[0].items() if value is not None}
    no_bound = "no bound: see the training curve of {model}"
    curve = Said(no_bound.replace("{model}", name), no_bound, model=name)
    rows: list[Row] = [
        ("metrics", "finite", at_least(1, curve), "every metric is a finite number", "{metric} is {value}"),
        *_baseline_rows(name, settings.baseline, frames),
        *(row for row in GENERATION if row[1] in scores and row[1] not in thresholds),
    ]
    for metric, bound in sorted(thresholds.items()):
        key = f"evaluations.{name}.thresholds.{metric}"
        rows.append(("scores", metric, measured(key), _measured_in_words(metric, name, scores)))
        if (condition := _condition(bound, key)) is not None:
            rows.append(("scores", metric, condition, _in_words(metric, bound)))
    return suite("gates.model", settings, rows)


def _condition(bound: Bound, key: str) -> Condition | None:
    if bound.at_least is not None and bound.at_most is not None:
        return within(bound.at_least, bound.at_most, key)
    if bound.at_least is not None:
        return at_least(bound.at_least, key)
    return None if bound.at_most is None else at_most(bound.at_most, key)


def _baseline_rows(name: str, settings: Baseline, frames: Mapping[str, Frame]) -> list[Row]:
    """The expectations that the model beats its baselines; none for a baseline that was not measured or is ignored."""
    key = "gates.model.baseline"
    rows: list[Row] = []
    if frames["entropy"].rows and settings.documents != "ignore":
        words = Said(
            f"the model predicts better than a unigram model; if not, train {name} longer or at another learning rate",
            "beats a unigram model", model=name,
        )  # fmt: skip
        condition = _with(settings.documents, zero(f"{key}.documents"))
        rows.append(("entropy", "nats_above_unigram", condition, words, UNIGRAM))
    compared = beside(_numbers(frames["baseline"]))
    if compared is not None and settings.labelled != "ignore":
        words = Said(
            f"the model beats its baseline: {compared.sentence}",
            f"beats the baseline: {'accuracy' if isinstance(compared, BesideBaseline) else 'error'}",
            **{key: int(value) if value.is_integer() else value for key, value in compared._asdict().items()},
        )
        condition = _with(settings.labelled, at_most(ERROR_RATE / 2, f"{key}.labelled"))
        rows.append(("baseline", "chance_of_no_gain", condition, words, NO_GAIN))
    return rows


def _with(consequence: str, condition: Condition) -> Condition:
    return warning(condition) if consequence == "warn" else condition


def _baseline(metrics: Mapping[str, float]) -> Frame:
    """The model beside the baseline on the same records; no row where that was not measured."""
    compared = beside(metrics)
    fields = BesideBaseline._fields if compared is None else compared._fields
    frame = Frame((), (*fields, "chance_of_no_gain"))
    if compared is not None:
        frame.add(compared._asdict() | {"chance_of_no_gain": compared.chance_of_no_gain})
    return frame


def _numbers(frame: Frame) -> dict[str, float]:
    """The numbers of a frame's only row; empty without a row."""
    return {name: value for row in frame.rows for name, value in row.items() if isinstance(value, int | float)}


def _entropy(metrics: Mapping[str, float]) -> Frame:
    frame = Frame((), ("loss_nats", "unigram_entropy_nats", "nats_above_unigram"))
    loss, entropy = metrics.get("loss_nats"), metrics.get("unigram_entropy_nats")
    if loss is not None and entropy is not None and math.isfinite(loss) and math.isfinite(entropy):
        frame.add({"loss_nats": loss, "unigram_entropy_nats": entropy, "nats_above_unigram": loss - entropy})
    return frame


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro evaluate@{path.parent.name}`")
    metrics = integrity.read_recorded(path, path.with_name("details.json"))
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{path}: {name} is {value!r}, expected a number; run the evaluation again")
    return {name: float(value) for name, value in metrics.items()}


def _measured_in_words(metric: str, name: str, scores: set[str]) -> Said:
    """That the metric was measured; if it was not: the metrics that were, and the one with the most similar name."""
    text = f"{metric} was measured (evaluations.{name}.measures)"
    if metric in scores:
        return Said(text, "metric measured", metric=metric, model=name)
    similar = difflib.get_close_matches(metric, sorted(scores), n=1)
    others, hint = ", ".join(sorted(scores)), f"; did you mean {similar[0]}?" if similar else ""
    return Said(
        f"{text}; measured: {others or 'none'}{hint}", f"metric not measured{', similar' if similar else ''}",
        metric=metric, model=name, others=others or "-", similar=similar[0] if similar else "",
    )  # fmt: skip


def _in_words(metric: str, bound: Bound) -> Said:
    sides = [
        f"at least {bound.at_least}" if bound.at_least is not None else "",
        f"at most {bound.at_most}" if bound.at_most is not None else "",
    ]
    english = f"{metric} is {' and '.join(side for side in sides if side)}"
    key = "within" if all(sides) else "at least" if sides[0] else "at most"
    return Said(english, f"metric {key}", metric=metric, low=bound.at_least, high=bound.at_most)
