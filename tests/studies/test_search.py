"""Search: values that nobody had to guess, trials that no kill loses, and nothing of the graph touched."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import config, files
from pipeline.config import edit
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.paths import QUEUE
from pipeline.studies.search import STORE, RecipeSearch, SearchTrial
from pipeline.studies.search_results import apply, show
from pipeline.tracking import sender, stage
from pipeline.training import run as training
from pipeline.training import validation
from stages import finetune
from tests import searches
from tests.searches import RANK, RATE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searches.template(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def enter(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that goes to a fresh copy of the project."""
    monkeypatch.setattr(stage, "start_sender", lambda: None)
    torch.set_num_threads(1)

    def go(**settings: Any) -> Path:
        searches.copied(made, tmp_path / "project", **settings)
        monkeypatch.chdir(tmp_path / "project")
        return tmp_path / "project"

    return go


@pytest.fixture(scope="module")
def whole(made: Path) -> list[Any]:
    """The trials of an uninterrupted search."""
    folder = made.parent / "whole"
    searches.copied(made, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "start_sender", lambda: None)
        patch.chdir(folder)
        return told(ran().trials())


def search() -> RecipeSearch:
    return RecipeSearch("spam-lora", config.load())


def ran() -> RecipeSearch:
    found = search()
    found.run()
    return found


def told(trials: list[SearchTrial]) -> list[Any]:
    """The part of the trials that must not depend on interruptions."""
    return [(t.number, t.state, t.values, repr(t.loss), t.reason) for t in trials]


def queue() -> list[list[dict[str, Any]]]:
    """The lines of every run, oldest first."""
    paths = sorted(QUEUE.glob("*.jsonl"), key=lambda path: path.stat().st_ctime_ns)
    return [[json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line] for path in paths]


def tree(*folders: str) -> dict[str, str]:
    return {str(path): files.sha256_of(path) for folder in folders for path in Path(folder).rglob("*.*")}


def test_apply_writes_the_lowest_loss_and_changes_nothing_else(
    enter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: a search picks the wrong trial, or takes the comments of params.yaml with it."""
    monkeypatch.setattr("pipeline.orchestration.plan.show", lambda: print("the plan"))
    enter()
    before = Path("params.yaml").read_text(encoding="utf-8")
    untouched = tree("models", "data")
    found = ran()
    complete = [trial for trial in found.trials() if trial.state == "complete"]
    assert len(found.trials()) == 5
    assert len(complete) >= 2
    best = found.best()
    assert best.loss == min(trial.loss for trial in complete)
    apply(found)
    recipe = config.load().finetune["spam-lora"]
    assert recipe.part("optimizer", "").learning_rate == best.values[RATE]
    assert recipe.part("tuner", "").rank == best.values[RANK]
    after = Path("params.yaml").read_text(encoding="utf-8")
    changed = [new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert 1 <= len(changed) <= 2
    assert "# changes no bit of any out" in after
    shown = capsys.readouterr().out
    assert f"+    optimizer: {{name: adamw, learning_rate: {best.values[RATE]}" in shown
    assert shown.endswith("the plan\n")
    assert tree("models", "data") == untouched
    assert not Path("reports").exists()

    apply(search())  # the values that are searched are no input of the search: it is found again
    assert "params.yaml has these values already" in capsys.readouterr().out
    show(search())
    assert "5 trials" in capsys.readouterr().out


def test_trial_has_the_loss_of_the_recipe_with_its_values(
    enter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the loss that won is not the loss that the winner has."""
    enter(trials=2)
    best = ran().best()
    edit.change(Path("params.yaml"), {f"finetune.spam-lora.{path}": v for path, v in best.values.items()})
    monkeypatch.setattr(sys, "argv", ["finetune", "spam-lora"])
    finetune.main()
    assert files.read_json(Path("reports/training/spam-lora.json"))["best_validation_loss_nats"] == best.loss


def test_search_prunes_a_hopeless_trial(enter: Callable[..., Path]) -> None:
    """Lost otherwise: every bad learning rate costs a whole training."""
    enter(trials=8, space={RATE: {"choices": [0.003, 5.0]}})
    found = ran()
    assert found.best().values[RATE] == 0.003
    pruned = [trial for trial in found.trials() if trial.state == "pruned"]
    assert pruned
    assert {trial.values[RATE] for trial in pruned} == {5.0}
    assert not any(trial.reason for trial in pruned)
    last = {lines[0]["stage"]: max(line.get("step") or 0 for line in lines) for lines in queue()}
    assert all(last[f"trial {trial.number}"] < 8 for trial in pruned)
    assert all(last[f"trial {trial.number}"] == 8 for trial in found.trials() if trial.state == "complete")


def test_search_continues_after_a_diverged_trial(enter: Callable[..., Path]) -> None:
    """Lost otherwise: one wild learning rate ends the night. Pruned, not failed, so that TPE keeps away from it."""
    enter(trials=2, space={RATE: {"choices": [1e29, 1e30]}})
    found = ran()
    assert [trial.state for trial in found.trials()] == ["pruned", "pruned"]
    assert all("loss is" in trial.reason for trial in found.trials())
    with pytest.raises(UserError, match=r"code is complete; .*loss is nan at step"):
        found.best()


def test_search_continues_after_a_failed_trial(enter: Callable[..., Path]) -> None:
    """Some combinations only the data refuses: here virtual tokens that leave no room for a message."""
    prompts = [{"name": "prompt", "virtual_tokens": n, "text": "ödül", "with_base": True} for n in (2, 20)]
    enter(space={"tuner": {"choices": prompts}})
    trials = ran().trials()
    assert {t.values["tuner"]["virtual_tokens"]: t.state for t in trials if t.state != "pruned"} == {
        2: "complete",
        20: "failed",
    }
    assert len(trials) == 5
    assert all("leave room for 28" in t.reason for t in trials if t.state == "failed")
    ends = [lines[-1]["status"] for lines in queue() if lines[0]["kind"] == "trial"]
    assert ends.count("FAILED") == sum(t.state == "failed" for t in trials)


def test_search_validates_all_batch_sizes_on_the_same_examples(
    enter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a larger batch is also measured on more messages, and wins or loses by them."""
    enter(trials=3, space={"ordering.batch_size": {"choices": [4, 7, 16]}})
    seen = set()
    measure = validation.mean_loss

    def spy(model: Any, parts: Any, examples: Any, batches: int) -> float:
        seen.add((parts.ordering.batch_size, min(len(examples), batches * parts.ordering.batch_size)))
        return measure(model, parts, examples, batches)

    monkeypatch.setattr(validation, "mean_loss", spy)
    ran()
    assert len({size for size, _ in seen}) > 1
    assert {count for _, count in seen} == {16}


def test_search_ends_the_same_after_interrupts(
    enter: Callable[..., Path], whole: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a trial, between trials, and with more trials asked for later."""
    enter()
    validate, calls = training.Trainer._validate, 0

    def interrupted(self: Any, state_of: int) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 7, 8):
            raise KeyboardInterrupt
        validate(self, state_of)

    monkeypatch.setattr(training.Trainer, "_validate", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search().run()
    assert told(ran().trials()) == whole
    starts = [lines[0] for lines in queue()]
    assert sum(start["kind"] == "search" for start in starts) == 1  # one run, however often it was continued
    assert sum(start["kind"] == "trial" for start in starts) == 5 + 3

    text = Path("params.yaml").read_text(encoding="utf-8").replace('"trials": 5', '"trials": 6')
    Path("params.yaml").write_text(text, encoding="utf-8")
    more = told(ran().trials())
    assert (more[:5], len(more)) == (whole, 6)


def test_search_continues_after_a_kill(enter: Callable[..., Path], whole: list[Any]) -> None:
    """SIGKILL leaves a trial that optuna takes for running; its values must come again."""
    enter()
    command = [sys.executable, "-m", "pipeline.cli", "search", "spam-lora"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("enabled: true", "enabled: false"), encoding="utf-8")
    process = subprocess.Popen(command, env=environment)
    ends = time.monotonic() + 60
    while states().count("COMPLETE") < 2 or "RUNNING" not in states():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < ends
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states().count("RUNNING") == 1
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert states().count("FAIL") == 1
    (best,) = [row for row in whole if row[3] == min(r[3] for r in whole if r[1] == "complete")]
    assert f"writes trial {best[0]} into params.yaml" in done.stdout
    assert "5 trials" in done.stdout
    assert str(best[2][RATE]) in done.stdout


def states() -> list[str]:
    """The states of all trials in the database."""
    try:
        with sqlite3.connect(f"file:{STORE}?mode=ro", uri=True) as connection:
            return [state for (state,) in connection.execute("select state from trials")]
    except sqlite3.OperationalError:
        return []


def test_search_starts_another_study_for_other_inputs(enter: Callable[..., Path]) -> None:
    """Lost otherwise: trials on yesterday's data decide today's settings."""
    enter(trials=1)
    first = ran()
    assert search().title == first.title
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("steps: 8,", "steps: 7,"), encoding="utf-8")
    assert search().trials() == []
    with pytest.raises(UserError, match="no trial with these params, data and code is complete; run `tohum search"):
        search().best()
    Path("params.yaml").write_text(text, encoding="utf-8")
    assert len(search().trials()) == 1
    shutil.rmtree("models/base")
    with pytest.raises(UserError, match="models/base: not there yet; run `dvc repro` first"):
        search()


def test_search_records_every_trial_as_a_child_run(enter: Callable[..., Path]) -> None:
    """Lost otherwise: nobody can see in MLflow what was tried, and on what."""
    folder = enter(trials=3)
    found = ran()
    opened = {lines[0]["uid"]: lines[0] for lines in queue()}
    (parent,) = [uid for uid, line in opened.items() if line["kind"] == "search"]
    assert all(line["pipeline_uid"] == parent for line in opened.values())
    assert sender.drain(timeout_s=60) == 0

    from mlflow import MlflowClient

    client = MlflowClient(config.load().runtime.tracking.uri)
    experiment = client.get_experiment_by_name("tohum")
    runs = client.search_runs([experiment.experiment_id])
    (above,) = [run for run in runs if run.data.tags["tohum.kind"] == "search"]
    assert (above.info.run_name, above.info.status) == ("search@spam-lora", "FINISHED")
    assert above.data.params["search.space.tuner.rank.choices"] == "[1, 2, 4]"
    assert above.data.metrics["best_validation_loss_nats"] == found.best().loss
    assert "mlflow.parentRunId" not in above.data.tags
    children = {run.info.run_name: run for run in runs if run.info.run_id != above.info.run_id}
    assert set(children) == {f"trial {number}" for number in range(3)}
    for trial in found.trials():
        child = children[f"trial {trial.number}"]
        assert child.data.tags["mlflow.parentRunId"] == above.info.run_id
        assert child.data.tags["tohum.trial"] == trial.state
        assert child.data.params[RANK] == str(trial.values[RANK])
        assert child.data.params[f"finetune.{RATE}"] == str(trial.values[RATE])
        history = client.get_metric_history(child.info.run_id, "validation_loss_nats")
        assert [m.step for m in history] == [2, 4, 6, 8][: len(history)]
        if trial.state == "complete":
            assert child.data.metrics["loss_nats"] == trial.loss == min(m.value for m in history)
    assert not (folder / "reports").exists()


def test_search_ranks_trials_by_the_measure_that_the_recipe_keeps_weights_by(
    enter: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: the search would choose the lowest loss for a recipe that is kept by its accuracy."""
    enter(trials=2)
    edit.change(Path("params.yaml"), {"finetune.spam-lora.validation.keep": {"measure": "accuracy"}})
    found = ran()
    assert found.figure == "1 - accuracy"
    errors = [trial.loss for trial in found.trials() if trial.state == "complete"]
    assert errors
    sixteenths = [error * 16 for error in errors]  # a validation has 16 records
    assert sixteenths == [pytest.approx(round(number)) for number in sixteenths]
    assert found.best().loss == min(errors)
    show(found)
    assert "1 - accuracy" in capsys.readouterr().out
