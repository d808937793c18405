"""The record of a real run of the whole graph, small: what MLflow shows is what was measured, read and judged.

A reviewer who compares runs by a curve, a hash or a page that is not the run's own decides about another model.
"""

import csv
import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import files
from pipeline.studies import workspace
from pipeline.studies.guess import guess
from pipeline.tracking import artifact_location, lineage
from tests import scratch

pytestmark = pytest.mark.slow
WORDS = ["ışık", "deniz", "yol", "ev", "kedi", "sabah", "akşam", "güzel", "büyük", "kırmızı", "gitti", "geldi", "gördü"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A try of 240 labelled lines with tracking on: download to report, one recipe, all of it delivered."""
    folder = tmp_path_factory.mktemp("record")
    rng = random.Random(1)
    lines = [f"{' '.join(rng.choice(WORDS) for _ in range(25))} {n},{('spam', 'ham')[n % 2]}" for n in range(240)]
    data = folder / "iletiler.csv"
    data.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    found = guess(data)
    params = workspace.params(Path("inputs") / data.name, found)
    del params["finetune"]["spam-full"], params["evaluations"]["spam-full"]
    for recipe in (params["pretrain"], params["finetune"]["spam-lora"]):
        recipe["schedule"] |= {"steps": 12, "warmup_steps": 2}
        recipe["validation"] |= {"every": 4, "batches": 2}
    params["runtime"] |= {"progress": False, "log_every": 1}
    params["runtime"]["tracking"] |= {"enabled": True, "uri": "sqlite:///mlflow.db", "experiment": "record"}
    root = folder / "project"
    workspace.workspace(data, found, root, params)
    assert scratch.dvc(root, "init", "--no-scm", "--quiet").returncode == 0
    _repro(root)
    return root


def _repro(root: Path, *arguments: str) -> None:
    done = scratch.dvc(root, "repro", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    drain = [sys.executable, "-m", "pipeline.tracking.sender", "--drain"]
    subprocess.run(drain, cwd=root, env=scratch.environment(), check=True, capture_output=True)


def _rows(root: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(root / "mlflow.db") as connection:
        return connection.execute(query, values).fetchall()


def _runs(root: Path, tag: str, value: str) -> list[str]:
    query = (
        "select t.run_uuid from tags t join runs r using (run_uuid) where t.key = ? and t.value = ? order by start_time"
    )
    return [run_id for (run_id,) in _rows(root, query, tag, value)]


def _tags(root: Path, run_id: str) -> dict[str, str]:
    return dict(_rows(root, "select key, value from tags where run_uuid = ?", run_id))


def _curve(root: Path, run_id: str, key: str) -> list[tuple[int, float]]:
    query = "select step, value from metrics where run_uuid = ? and key = ? order by step, timestamp"
    return [(int(step), float(value)) for step, value in _rows(root, query, run_id, key)]


def _artifacts(root: Path, run_id: str) -> set[str]:
    ((uri,),) = _rows(root, "select artifact_uri from runs where run_uuid = ?", run_id)
    folder = Path(artifact_location.resolve(uri, f"sqlite:///{root}/mlflow.db").removeprefix("file://"))
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _locked(root: Path) -> dict[str, dict[str, str]]:
    """Stage -> dependency -> hash, without the code, which git names."""
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    return {
        name: {dep["path"]: dep["md5"] for dep in stage["deps"] if not lineage.is_code(dep["path"])}
        for name, stage in lock["stages"].items()
        if name != "code"  # it reads nothing else, and no run of it is recorded
    }


def test_the_lineage_of_every_stage_is_what_dvc_lock_records(project: Path) -> None:
    locked = _locked(project)
    assert len(locked) == 13
    shown = {}
    for stage in locked:
        (run_id,) = _runs(project, "tohum.stage", stage)
        tags = _tags(project, run_id)
        shown[stage] = {key.removeprefix("dvc.in."): text for key, text in tags.items() if key.startswith("dvc.in.")}
    assert shown == locked
    assert all(locked[stage] for stage in locked)


@pytest.mark.parametrize(("stage", "model"), [("pretrain", "base"), ("finetune@spam-lora", "spam-lora")])
def test_every_curve_is_that_of_the_csv(project: Path, stage: str, model: str) -> None:
    """No point but those that were measured; the CSV's training loss is the mean of the steps since the last one."""
    (run_id,) = _runs(project, "tohum.stage", stage)
    with (project / f"reports/training/{model}.csv").open(encoding="utf-8", newline="") as file:
        table = [
            (int(row["step"]), float(row["train_loss_nats"]), float(row["validation_loss_nats"]))
            for row in csv.DictReader(file)
        ]
    assert _curve(project, run_id, "validation_loss_nats") == [(step, loss) for step, _, loss in table]
    losses = dict(_curve(project, run_id, "batch_loss_nats"))
    assert list(losses) == list(range(1, 13))
    last = 0
    for step, mean, _ in table:
        assert sum(losses[one] for one in range(last + 1, step + 1)) / (step - last) == pytest.approx(mean, rel=1e-9)
        last = step
    summary = files.read_json(project / f"reports/training/{model}.json")
    assert _curve(project, run_id, "summary/validation_loss_nats") == [(0, summary["validation_loss_nats"])]
    assert _curve(project, run_id, "train_loss_nats") == [(0, summary["train_loss_nats"])]
    for (key,) in _rows(project, "select key from metrics where run_uuid = ? and step = 0", run_id):
        assert len(_curve(project, run_id, key)) == 1, f"{key} has a curve that begins with a figure of the whole run"


def test_the_pipelines_run_carries_settings_scores_pages_and_links(project: Path) -> None:
    (run_id,) = _runs(project, "tohum.kind", "pipeline")
    params = dict(_rows(project, "select key, value from params where run_uuid = ?", run_id))
    assert params["pretrain.schedule.steps"] == params["finetune.spam-lora.schedule.steps"] == "12"
    shown = dict(_rows(project, "select key, value from latest_metrics where run_uuid = ?", run_id))
    measured = {
        name: files.read_json(project / f"reports/evaluation/{name}/metrics.json") for name in ("base", "spam-lora")
    }
    assert shown["spam-lora/accuracy"] == measured["spam-lora"]["accuracy"]
    assert any(key.startswith("base/") for key in shown)
    pages = {f"gates/{gate}/page.html" for gate in ("raw", "tokens", "samples", "base", "spam-lora")}
    pages |= {f"models/{name}.html" for name in measured}
    assert _artifacts(project, run_id) == pages | {"report.html"}
    (gate,) = _runs(project, "tohum.stage", "validate@raw")
    assert _artifacts(project, gate) == {"page.html"}
    note = _tags(project, run_id)["mlflow.note.content"]
    assert "| spam-lora | accuracy |" in note
    assert all(f"{run_id}/artifacts/{page}" in note for page in pages)
    assert _rows(project, "select status from runs where run_uuid = ?", run_id) == [("FINISHED",)]
    kind = "select value from experiment_tags where key = 'mlflow.experimentKind'"
    assert _rows(project, kind) == [("custom_model_development",)]


def test_training_again_is_a_run_of_its_own_in_a_pipeline_of_its_own(project: Path) -> None:
    """Last in this file: it adds a run. The first one and its pipeline stay as they were."""
    (first,) = _runs(project, "tohum.stage", "pretrain")
    before = _curve(project, first, "batch_loss_nats")
    _repro(project, "--force", "--single-item", "pretrain")
    old, new = _runs(project, "tohum.stage", "pretrain")
    assert old == first
    assert _curve(project, old, "batch_loss_nats") == _curve(project, new, "batch_loss_nats") == before
    above = [_tags(project, run_id)["mlflow.parentRunId"] for run_id in (old, new)]
    assert above[0] != above[1]
    for parent in above:
        assert _rows(project, "select status from runs where run_uuid = ?", parent) == [("FINISHED",)]
    record = json.loads((project / "reports/runs/pretrain.json").read_text(encoding="utf-8"))
    assert record["run_uid"] == _tags(project, new)["tohum.run_uid"]
