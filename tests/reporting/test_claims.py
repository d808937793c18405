"""Experiments: a hasty verdict would recommend a useless method, or reject a good one."""

from typing import Any

import pytest

from pipeline.config.params import Experiment
from pipeline.errors import UserError
from pipeline.reporting.claims import findings


def model(name: str, accuracy: float, losses: list[float] | None = None) -> dict[str, Any]:
    curve = [{"step": 10.0 * (i + 1), "validation_loss_nats": loss} for i, loss in enumerate(losses or [1.0])]
    return {"name": name, "metrics": {"accuracy": accuracy}, "training": {"epsilon": 8.0}, "curve": curve}


def experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "claim": "wins", "method": "new", "against": "old", "figure": "accuracy", "target": None, "better": "higher",
        "margin": 0.0, "expect": True,
    }  # fmt: skip
    return Experiment.model_validate(fields | changes)


def verdict(new: list[float], old: list[float], **changes: Any) -> Any:
    models = [model(f"new-s{i}", value) for i, value in enumerate(new)]
    models += [model(f"old-s{i}", value) for i, value in enumerate(old)]
    (found,) = findings({"x": experiment(**changes)}, [*models, model("older-s1", 0.0), model("new-small-s1", 1.0)])
    return found


def test_findings_wins_only_beyond_error_and_margin() -> None:
    near, far, tight = [0.90, 0.92, 0.91], [0.70, 0.72, 0.71], [0.89, 0.93, 0.90]
    assert verdict(near, far).wins
    assert not verdict(far, near).wins
    assert not verdict(near, tight).wins
    assert not verdict(near, far, margin=0.2).wins
    assert verdict(tight, near, margin=-0.05).wins  # surely not worse by five points
    assert verdict(far, near, better="lower").wins
    one = verdict(near, far)
    assert one.gain == pytest.approx(0.2)
    assert one.error == pytest.approx(2 * (2 * 0.0001 / 3) ** 0.5)  # variances of 0.0001 over three seeds each


def test_findings_tests_the_mean_alone_without_another_method() -> None:
    near = [0.90, 0.92, 0.91]
    assert verdict(near, [], against=None, margin=0.89).wins
    assert not verdict(near, [], against=None, margin=0.90).wins  # 0.91 less two standard errors of 0.0058
    assert verdict(near, [], against=None, better="lower", margin=-0.93).wins
    assert not verdict(near, [], against=None, better="lower", margin=-0.92).wins
    assert verdict(near, [], against=None).theirs == (0.0,)


def test_findings_interpolates_updates_to_a_loss() -> None:
    models = [model("new-s1", 0, [2.0, 1.0, 0.5]), model("old-s1", 0, [3.0, 2.0, 1.5])]
    fields = {"figure": "updates_to", "target": 0.75, "better": "lower"}
    (found,) = findings({"x": experiment(**fields)}, models)
    assert found.ours == (25.0,)
    assert found.theirs == (40.0,)  # never: one validation more than it had
    assert found.wins
    (found,) = findings({"x": experiment(**fields | {"target": 2.5})}, models)
    assert found.ours == (10.0,)


def test_findings_names_method_or_metric_when_it_is_missing() -> None:
    with pytest.raises(UserError, match="no recipe is called missing, or missing-s1"):
        findings({"x": experiment(method="missing")}, [model("old-s1", 1)])
    with pytest.raises(UserError, match=r"experiments.x.figure is 'f2', which new-s1 does not have; one of: accuracy"):
        findings({"x": experiment(figure="f2")}, [model("new-s1", 1), model("old-s1", 1)])
    with pytest.raises(ValueError, match="target goes with figure updates_to"):
        experiment(target=1.0)
    with pytest.raises(ValueError, match="target goes with figure updates_to"):
        experiment(figure="updates_to")
