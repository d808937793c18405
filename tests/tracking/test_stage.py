"""Tracking slows and fails no stage, and records the costs and the lineage of every run."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipeline import files
from pipeline.config.params import Params
from pipeline.paths import CODE as ROOT
from pipeline.paths import QUEUE, RUNS
from pipeline.tracking import lineage, stage, start_sender, tracker
from pipeline.tracking.stage import tracked_stage


def params(enabled: bool = True, uri: str = "sqlite:///mlflow.db", experiment: str = "tests") -> Params:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["runtime"]["tracking"] = {"enabled": enabled, "uri": uri, "experiment": experiment}
    return Params.model_validate(raw)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project; no sender is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOHUM_PIPELINE_UID", raising=False)
    monkeypatch.setattr(stage, "start_sender", lambda: None)
    return tmp_path


def lines(folder: Path) -> list[dict[str, Any]]:
    (path,) = (folder / QUEUE).glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def record(folder: Path, name: str = "pretrain") -> dict[str, Any]:
    return files.read_json(folder / RUNS / f"{name}.json")


def test_tracked_stage_writes_metrics_and_the_record_of_costs(here: Path) -> None:
    with tracked_stage("pretrain", params(), tags={"note": "İlk"}) as run:
        with run.work():
            run.log({"loss_nats": 2.5}, step=1)
            time.sleep(0.01)
        run.record["tokens_per_second"] = 12.5
    start, metrics, end = lines(here)
    assert (start["event"], start["stage"], start["uid"]) == ("start", "pretrain", run.uid)
    assert start["tags"]["note"] == "İlk"
    assert start["params"]["pretrain.model.n_layers"] == "4"
    assert not any(key.startswith("download") for key in start["params"])
    assert (metrics["values"], metrics["step"]) == ({"loss_nats": 2.5}, 1)
    assert (end["status"], end["values"]["tokens_per_second"]) == ("FINISHED", 12.5)
    found = record(here)
    assert found["run_uid"] == run.uid
    assert 0.01 <= found["seconds_work"] <= found["seconds_total"]
    assert found["peak_memory_mib"] > 1
    assert "estimated" in found["energy_method"]
    assert found["energy_wh_estimated"] == pytest.approx(found["seconds_cpu"] * 3.5 / 3600, rel=0.01)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("broken"), "FAILED"),
        (SystemExit(1), "FAILED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_tracked_stage_records_the_status_however_the_stage_ends(here: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), tracked_stage("pretrain", params()):
        raise error
    assert record(here)["status"] == status
    assert lines(here)[-1]["status"] == status


def test_tracked_stage_records_costs_and_queues_nothing_when_disabled(here: Path) -> None:
    with tracked_stage("pretrain", params(enabled=False)) as run:
        run.log({"loss_nats": 1.0}, step=1)
        run.params({"a": 1})
        run.tag(a="b")
        run.artifact(Path("nowhere"))
        run.model(Path("nowhere"), {})
    assert record(here)["status"] == "FINISHED"
    assert not (here / QUEUE).exists()


def test_tracked_stage_prints_one_line_when_the_queue_cannot_be_written(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / ".tohum").write_text("a file where the folder should be")
    with tracked_stage("pretrain", params()) as run:
        for step in range(5):
            run.log({"loss_nats": 1.0}, step=step)
        run.artifact(Path("nowhere"))
    assert record(here)["status"] == "FINISHED"
    assert len(capsys.readouterr().err.splitlines()) == 2  # the queue once, the missing artifact once


def test_tracked_stage_records_numbers_of_any_kind(here: Path) -> None:
    np = pytest.importorskip("numpy")
    with tracked_stage("pretrain", params()) as run:
        run.log({"loss_nats": np.float32(0.5), "diverged": float("nan")}, step=np.int64(3).item())
        run.record |= {"speed": np.float64(2.0), "worst": float("inf"), "where": Path("a/b"), "shape": (1, 2)}
    found = record(here)
    assert (found["speed"], found["worst"], found["where"], found["shape"]) == (2.0, None, "a/b", [1, 2])


def test_continue_in_continues_an_interrupted_run(here: Path) -> None:
    state = here / "state"
    with pytest.raises(KeyboardInterrupt), tracked_stage("pretrain", params()) as first:  # noqa: PT012 - the block is the run that is interrupted
        first.continue_in(state)
        first.log({"loss_nats": 2.0}, step=1)
        raise KeyboardInterrupt
    with tracked_stage("pretrain", params()) as second:
        second.continue_in(state)
        second.log({"loss_nats": 1.0}, step=2)
    assert second.uid == first.uid == record(here)["run_uid"]
    assert [line["event"] for line in lines(here)] == ["start", "metrics", "end", "start", "metrics", "end"]


def test_continue_in_starts_a_new_run_after_an_end(here: Path) -> None:
    """With equal inputs the state folder is the same: the run that has finished there is not written to again."""
    state, uids = here / "state", []
    for _ in range(2):
        with tracked_stage("pretrain", params()) as run:
            run.continue_in(state)
            run.log({"loss_nats": 1.0}, step=1)
        uids.append(run.uid)
        files.write_text(state / "run_uid", run.uid)  # as an older version left it, or a kill just after the last word
    assert len(set(uids)) == 2
    assert record(here)["run_uid"] == uids[1]
    for uid in uids:
        path = here / QUEUE / f"{uid}.jsonl"
        assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["start", "metrics", "end"]


def test_continue_in_starts_a_new_run_when_tracking_is_disabled(here: Path) -> None:
    state, uids = here / "state", set()
    for _ in range(2):
        with tracked_stage("pretrain", params(enabled=False)) as run:
            run.continue_in(state)
        uids.add(run.uid)
    assert len(uids) == 2


def test_file_tracker_starts_a_new_line_after_half_a_line(here: Path) -> None:
    state = here / "state"
    with contextlib.suppress(KeyboardInterrupt), tracked_stage("pretrain", params()) as run:
        run.continue_in(state)
        raise KeyboardInterrupt
    (path,) = (here / QUEUE).glob("*.jsonl")
    with path.open("a") as stream:
        stream.write('{"event": "metr')
    with tracked_stage("pretrain", params()) as run:
        run.continue_in(state)
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["event"] for line in whole] == ["start", "end", "start", "end"]


def test_model_records_path_and_hash(here: Path) -> None:
    model = here / "models/base"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    with tracked_stage("pretrain", params()) as run:
        run.model(Path("models/base"), {"loss_nats": 1.5})
    event = lines(here)[1]
    assert (event["name"], event["path"]) == ("base", "models/base")
    assert event["sha256"] == files.sha256_of(model)


def test_pipeline_uid_is_shared_by_the_stages_of_one_dvc_run(here: Path) -> None:
    code = "import subprocess,sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', sys.argv[1]])"
    ask = "from pipeline.tracking import lineage; print(lineage.pipeline_uid())"
    (here / "dvc").write_text(code)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.run([sys.executable, "dvc", ask], env=environment, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert [len(set(run)) for run in runs] == [1, 1]
    assert runs[0][0] != runs[1][0] != "None"


def test_pipeline_uid_is_the_flows_when_it_sets_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOHUM_PIPELINE_UID", "flow-run-7")
    with tracked_stage("download", params()):
        pass
    assert record(here, "download")["pipeline_uid"] == "flow-run-7"


def test_tracked_stage_tags_input_hashes_and_verdicts(here: Path) -> None:
    (here / "dvc.lock").write_text(
        "stages:\n  pretrain:\n    outs: [{path: models/base, hash: md5, md5: aaa.dir}]\n"
        "  sample:\n    outs: [{path: data/samples, hash: md5, md5: bbb.dir}]\n"
    )
    files.write_json(here / "reports/gates/raw/verdict.json", {"passed": True, "results": [{"waived": True}]})
    files.write_json(here / "reports/gates/samples/verdict.json", {"passed": False})
    with tracked_stage("finetune@spam-lora", params()):
        pass
    tags = lines(here)[0]["tags"]
    assert tags["dvc.in.models/base"] == "aaa.dir"
    assert "dvc.in.data/samples/labelled" not in tags, "the hash of its parent folder is not its own"
    assert tags["tohum.recipe"] == "spam-lora"
    assert (tags["gate.raw"], tags["gate.samples"]) == ("passed, 1 waived", "failed")


def test_lineage_is_empty_outside_git_and_dvc(here: Path) -> None:
    assert lineage.git_state() == {}
    assert lineage.input_hashes("pretrain", params()) == {}
    (here / "dvc.lock").write_text("stages: [broken")
    assert lineage.locked_inputs("pretrain") == {}
    assert lineage.stage_order() == []


def test_stage_module_imports_no_heavy_library() -> None:
    heavy = {"mlflow", "torch", "numpy", "pyarrow"}
    code = f"import sys, pipeline.tracking.stage; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_start_sender_starts_one_process_in_its_own_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append((a, k)) or SimpleNamespace(pid=1))
    start_sender.start_sender()
    assert started[0][1]["start_new_session"] is True
    import fcntl

    with start_sender.SENDER_LOCK.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        start_sender.start_sender()
    assert len(started) == 1


def test_file_tracker_loses_no_line_when_the_disk_is_full_for_a_while(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: the training survives a full disk, and its curve ends there for good."""
    put, full = tracker._append, iter([False, False, True, True, False])

    def sometimes(stream: Any, line: bytes) -> None:
        if line.strip() and next(full, False):
            stream.write(line[:5])
            raise OSError(28, "No space left on device")
        put(stream, line)

    monkeypatch.setattr(tracker, "_append", sometimes)
    with tracked_stage("pretrain", params()) as run:
        for step in range(1, 8):
            run.log({"loss_nats": 2.5}, step=step)
    path = next((here / QUEUE).glob("*.jsonl"))
    whole = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    assert [one["step"] for one in whole if one["event"] == "metrics"] == [1, 2, 3, 4, 5, 6, 7]
    assert whole[-1]["status"] == "FINISHED"
    assert capsys.readouterr().err.count("No space left on device") == 1
