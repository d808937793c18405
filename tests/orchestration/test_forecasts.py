"""forecasts.py: the costs of a training by its last run, or by a forecast that is made once."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.orchestration import forecasts, plan
from pipeline.orchestration.process import StageError

RECIPE: dict[str, Any] = {
    "from": "base", "data": "labelled", "seed": 1, "task": {"name": "classify", "max_tokens": 96},
    "tuner": {"name": "full"}, "ordering": {"name": "shuffled", "batch_size": 16},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3}, "schedule": {"steps": 100, "accumulate": 1},
}  # fmt: skip
PARAMS = {"compute": {"threads": 2}, "finetune": {"spam": RECIPE}}
LOCKED = {"params": {"params.yaml": {"finetune.spam": RECIPE, "compute": {"threads": 2}}}}
RECORD = {"seconds_total": 60.0, "training_seconds": 50.0, "peak_memory_mib": 700.0}


def changed(**parts: Any) -> dict[str, Any]:
    params = copy.deepcopy(PARAMS)
    params["finetune"]["spam"] |= parts
    return params


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, (60.0, 700.0)),
        ({"seed": 2, "optimizer": {"name": "adamw", "learning_rate": 1e-4}}, (60.0, 700.0)),
        ({"schedule": {"steps": 300, "accumulate": 1}}, (160.0, 700.0)),
        ({"schedule": {"steps": 100, "accumulate": 4}}, None),
        ({"schedule": {"steps": None, "epochs": 2, "accumulate": 1}}, None),
        ({"ordering": {"name": "shuffled", "batch_size": 64}}, None),
        ({"tuner": {"name": "lora"}}, None),
        ({"optimizer": {"name": "muon", "learning_rate": 1e-3}}, None),
    ],
)
def test_last_run_counts_where_an_update_costs_the_same(
    parts: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    """Lost otherwise: a batch four times as large would be said to need the memory of the small one."""
    assert forecasts.last_run("finetune@spam", RECORD, LOCKED, changed(**parts)) == expected


def test_last_run_gives_nothing_without_a_record_or_with_other_compute() -> None:
    assert forecasts.last_run("finetune@spam", {}, LOCKED, changed()) is None
    assert forecasts.last_run("finetune@spam", RECORD, {}, changed()) is None
    assert forecasts.last_run("finetune@spam", RECORD, LOCKED, changed() | {"compute": {"threads": 1}}) is None


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that are run; each prints a forecast of every recipe but `broken`."""
    monkeypatch.chdir(tmp_path)
    commands: list[list[str]] = []

    def run(_self: object, command: list[str], *, timeout_s: float, tell: Any) -> list[str]:
        assert timeout_s > 0
        commands.append(command)
        for where in command[1:]:
            if where == "finetune.broken":
                raise StageError("no such task")
            made = {"where": where, "memory_mib": 900, "seconds": 30.0, "refusal": None}
            tell(f"{forecasts.PREFIX}{json.dumps(made)}")
        return []

    monkeypatch.setattr(forecasts.Processes, "run", run)
    return commands


def test_foretell_starts_one_process_and_keeps_the_forecasts(runs: list[list[str]]) -> None:
    """Lost otherwise: every `tohum plan` would load torch, once for each training."""
    params = {"compute": {}, "finetune": dict.fromkeys(("a", "b"), RECIPE)}
    stages = ["finetune@a", "finetune@b"]
    first = forecasts.foretell(stages, params)
    assert first == forecasts.foretell(stages, params)
    assert {stage: made["memory_mib"] for stage, made in first.items()} == dict.fromkeys(stages, 900)
    assert runs == [["pipeline.training.forecast", "finetune.a", "finetune.b"]]
    params["finetune"]["b"] = RECIPE | {"seed": 2}
    forecasts.foretell(stages, params)
    assert runs[1:] == [["pipeline.training.forecast", "finetune.b"]]
    assert forecasts.foretell([], params) == {}


def test_foretell_keeps_what_was_said_before_a_failure(runs: list[list[str]]) -> None:
    params = {"compute": {}, "finetune": dict.fromkeys(("a", "broken", "c"), RECIPE)}
    assert list(forecasts.foretell(["finetune@a", "finetune@broken", "finetune@c"], params)) == ["finetune@a"]
    files.write_text(forecasts.FOLDER / "finetune@a.json", "{")
    assert list(forecasts.foretell(["finetune@a"], params)) == ["finetune@a"]
    assert len(runs) == 2


def test_plan_shows_a_forecast_and_refuses_a_training_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lost otherwise: the machine ends the training, and the user learns nothing before it."""
    monkeypatch.chdir(tmp_path)
    reason = "params.yaml: finetune.spam needs about 90,000 MiB of memory, and there are 8,192"
    made = {"finetune@spam": {"memory_mib": 90_000, "seconds": 120.0, "refusal": reason}}
    asked: list[list[str]] = []
    monkeypatch.setattr(forecasts, "foretell", lambda stages, _: asked.append(list(stages)) or made)
    rows = [
        plan.PlannedStage("tokenize", "cached", [], None, None, None),
        plan.PlannedStage("pretrain", "cached", [], 10.0, 100.0, None),
        plan.PlannedStage("finetune@spam", "run", ["never run"], None, None, None),
    ]
    table = plan.foretold(rows, {}, changed())
    assert asked == [["finetune@spam"]]
    shown = plan.render(table, free_bytes=2**40)
    assert "run          2.0  never run" in shown
    assert "peak memory of the largest stage: 90000 MiB (finetune@spam)" in shown
    assert f"refused: {reason}" in shown


def test_plan_says_at_most_where_the_records_of_a_training_are_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lost otherwise: an upper bound of ten times the truth reads like an estimate."""
    monkeypatch.chdir(tmp_path)
    bound = {"memory_mib": 14_254, "seconds": 15_480.0, "refusal": None, "at_most": True}
    row = plan.PlannedStage("finetune@spam", "run", ["never run"], None, None, None)
    for made, cells in (
        (bound, ("run       <258.0  never run", "at most 14254 MiB", "<: at most, with every example as long as its")),
        (
            bound | {"seconds": None},
            ("run            ?  never run", "at most 14254 MiB", "records of finetune@spam are"),
        ),
        (bound | {"at_most": False}, ("run        258.0  never run", "largest stage: 14254 MiB", "GiB free")),
    ):
        monkeypatch.setattr(forecasts, "foretell", lambda *_, made=made: {"finetune@spam": made})
        shown = plan.render(plan.foretold([row], {}, changed()), free_bytes=2**40)
        assert all(cell in shown for cell in cells), shown
        assert ("<" in shown) == made["at_most"]


def test_foretell_forgets_a_forecast_when_the_raw_records_come(
    runs: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lost otherwise: the upper bound of the first plan is shown after the download too."""
    forecasts.foretell(["finetune@spam"], PARAMS)
    raw = tmp_path / "data/raw/labelled.parquet"
    raw.parent.mkdir(parents=True)
    raw.write_bytes(b"records")
    forecasts.foretell(["finetune@spam"], PARAMS)
    assert len(runs) == 2
