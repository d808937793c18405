"""If these fail, a broken or weak model is registered, or a sound one is kept out."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import Bound
from pipeline.errors import UserError
from pipeline.gates import model
from tests.gates.builders import GATES, entry, failed, verdict_on

GOOD = {
    "loss_nats": 2.0,
    "unigram_entropy_nats": 6.0,
    "distinct_2": 0.8,
    "repetition_share": 0.02,
    "empty_share": 0.0,
    "accuracy": 0.97,
}
BOUNDS = {"accuracy": Bound(at_least=0.95, at_most=None), "loss_nats": Bound(at_least=None, at_most=3.0)}


def judged(
    metrics: dict[str, Any], folder: Path, bounds: dict[str, Bound] | None = None, **baseline: str
) -> dict[str, Any]:
    chosen = BOUNDS if bounds is None else bounds
    fields = GATES["model"] | {"baseline": GATES["model"]["baseline"] | baseline}
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    frames = model.profile(folder, chosen)
    expectations = model.expectations(model.Settings.model_validate(fields), "base", chosen, frames)
    return verdict_on("base", frames, expectations)


@pytest.mark.parametrize(
    ("column", "metrics", "expectation"),
    [
        ("finite", GOOD | {"perplexity": float("inf")}, "between"),
        ("finite", GOOD | {"perplexity": float("nan")}, "between"),
        ("nats_above_unigram", GOOD | {"unigram_entropy_nats": 1.5}, "between"),
        ("distinct_2", GOOD | {"distinct_2": 0.01}, "between"),
        ("repetition_share", GOOD | {"repetition_share": 0.9}, "between"),
        ("empty_share", GOOD | {"empty_share": 0.9}, "between"),
        ("accuracy", GOOD | {"accuracy": 0.9499}, "between"),
        ("loss_nats", GOOD | {"loss_nats": 3.1}, "between"),
        ("accuracy", {key: value for key, value in GOOD.items() if key != "accuracy"}, "null"),
    ],
)
def test_gate_fails_on_the_broken_metric(
    column: str, metrics: dict[str, Any], expectation: str, tmp_path: Path
) -> None:
    verdict = judged(metrics, tmp_path)
    assert failed(verdict) == {column}
    assert not verdict["passed"]
    assert expectation in entry(verdict, column)["expectation"]
    assert entry(verdict, column)["offenders"]


def beside_baseline(only_model: int, only_baseline: int, both: int = 40, neither: int = 3) -> dict[str, float]:
    """Metrics of a classifier and its baseline by the number of records that each labels right."""
    records = only_model + only_baseline + both + neither
    return {
        "accuracy": (both + only_model) / records,
        "baseline_accuracy": (both + only_baseline) / records,
        "majority_accuracy": 0.5,
        "examples": float(records),
        "only_model_right": float(only_model),
        "only_baseline_right": float(only_baseline),
    }


@pytest.mark.parametrize(
    ("only_model", "only_baseline", "beats", "words"),
    [
        (10, 0, True, "accuracy 0.943, and 0.755 of TF-IDF with logistic regression on the same 53 held-out records"),
        (6, 0, True, "the model alone is right on 6 and the baseline alone on 0: the model is better"),
        (5, 0, False, "the model alone is right on 5 and the baseline alone on 0: cannot tell which is better"),
        (0, 0, False, "cannot tell which is better"),
        (0, 10, False, "accuracy 0.755, and 0.943 of TF-IDF with logistic regression on the same 53 held-out records"),
        (0, 10, False, "the baseline is better: do not fine-tune for this"),
        (9, 3, False, "cannot tell which is better"),
    ],
)
def test_gate_warns_when_a_classifier_does_not_beat_its_baseline(
    only_model: int, only_baseline: int, beats: bool, words: str, tmp_path: Path
) -> None:
    """Lost otherwise: a classifier below a linear model would be passed without a word."""
    verdict = judged(beside_baseline(only_model, only_baseline), tmp_path, {})
    (rule,) = [result for result in verdict["results"] if result["column"] == "chance_of_no_gain"]
    assert verdict["passed"]
    assert rule["success"] == beats
    assert rule["severity"] == "warning"
    assert rule["params_key"] == "gates.model.baseline.labelled"
    assert words in rule["says"]


def test_gate_fails_below_the_baseline_when_params_say_block(tmp_path: Path) -> None:
    assert not judged(beside_baseline(0, 10), tmp_path, {}, labelled="block")["passed"]
    assert judged(beside_baseline(10, 0), tmp_path, {}, labelled="block")["passed"]


def test_gate_has_no_rule_on_an_ignored_or_unmeasured_baseline(tmp_path: Path) -> None:
    columns = {one["column"] for one in judged(beside_baseline(0, 10), tmp_path, {}, labelled="ignore")["results"]}
    columns |= {one["column"] for one in judged({"accuracy": 0.1, "examples": 9.0}, tmp_path, {})["results"]}
    assert "chance_of_no_gain" not in columns


def test_gate_warns_above_the_unigram_entropy_when_params_say_warn(tmp_path: Path) -> None:
    verdict = judged(GOOD | {"unigram_entropy_nats": 1.5}, tmp_path, documents="warn")
    assert verdict["passed"]
    assert not entry(verdict, "nats_above_unigram")["success"]


def test_gate_passes_at_the_exact_bounds(tmp_path: Path) -> None:
    assert judged(GOOD | {"accuracy": 0.95, "loss_nats": 3.0}, tmp_path)["passed"]


def test_gate_skips_generation_and_entropy_where_not_measured(tmp_path: Path) -> None:
    assert judged({"accuracy": 0.99}, tmp_path, {"accuracy": BOUNDS["accuracy"]})["passed"]


def test_gate_names_the_measures_for_a_missing_metric(tmp_path: Path) -> None:
    found = entry(judged({"loss_nats": 1.0}, tmp_path), "accuracy")
    assert found["offenders"] == ["all: accuracy missing"]
    assert found["params_key"] == "evaluations.base.thresholds.accuracy"
    assert "evaluations.base.measures" in found["says"]


def test_gate_suggests_the_measured_metric_for_a_mistyped_threshold(tmp_path: Path) -> None:
    metrics, bounds = {"accuracy": 0.99, "examples": 9.0}, {"acuracy": Bound(at_least=0.5, at_most=None)}
    says = entry(judged(metrics, tmp_path, bounds), "acuracy")["says"]
    assert says.endswith("; measured: accuracy, examples; did you mean accuracy?")


def test_thresholds_replace_the_shared_bound(tmp_path: Path) -> None:
    bounds = {"distinct_2": Bound(at_least=0.001, at_most=None)}
    assert judged(GOOD | {"distinct_2": 0.01}, tmp_path, bounds)["passed"]


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not readable"), ("[1]", "expected a table"), ('{"a": "x"}', "a is 'x'")]
)
def test_profile_refuses_unreadable_metrics(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        model.profile(tmp_path, {})
    with pytest.raises(UserError, match="dvc repro evaluate@"):
        model.profile(tmp_path / "nowhere", {})
