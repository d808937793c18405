"""If these fail, a broken or weak model is registered, or a sound one is kept out."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import Bound
from pipeline.errors import UserError
from pipeline.gates import model
from tests.gates.builders import GATES, entry, failed, verdict_on

SETTINGS = model.Settings.model_validate(GATES["model"])
GOOD = {
    "loss_nats": 2.0,
    "unigram_entropy_nats": 6.0,
    "distinct_2": 0.8,
    "repetition_share": 0.02,
    "empty_share": 0.0,
    "accuracy": 0.97,
}
BOUNDS = {"accuracy": Bound(at_least=0.95, at_most=None), "loss_nats": Bound(at_least=None, at_most=3.0)}


def judged(metrics: dict[str, Any], folder: Path, bounds: dict[str, Bound] | None = None) -> dict[str, Any]:
    chosen = BOUNDS if bounds is None else bounds
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    frames = model.profile(folder, chosen)
    return verdict_on("base", frames, model.expectations(SETTINGS, "base", chosen, frames))


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
