"""Leftovers of crashes are listed, and cleaned up on request; files in use and only copies stay."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.orchestration import doctor, environment, leftovers, temporaries
from pipeline.orchestration.leftovers import Diagnosis
from pipeline.paths import CODE as ROOT
from tests.commands import tohum

WAIT = "import pathlib, time; pathlib.Path('running').touch(); time.sleep(600)"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ended() -> int:
    """The number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def mended(found: list[Diagnosis]) -> list[str]:
    return [one.mend() for one in found if one.mend]


def snapshot(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_temporary_lists_files_of_ended_processes_and_removes_them(root: Path, ended: int) -> None:
    left = [
        put(root / f"reports/evaluation/.base.{ended}.tmp"),
        put(root / "models/.base.new.tmp/model.safetensors"),
        put(root / "models/.base.old.tmp/model.safetensors"),
        put(root / ".tohum/registry/tmpab12_x9z/model_card.md"),
        put(root / ".tohum/state/key/.current.new.tmp/tensors.safetensors"),
    ]
    kept = [
        put(root / f"reports/.metrics.json.{os.getpid()}.tmp"),
        put(root / "models/base/model.safetensors"),
        put(root / ".tohum/state/key/current/tensors.safetensors"),
        put(root / ".dvc/tmp/own.tmp"),
        put(root / "inputs/mine.tmp"),
        put(root / f".tohum/try/.params.yaml.{ended}.tmp"),
        put(root / ".tohum/try/params.yaml"),
    ]
    before = snapshot(root)
    found = temporaries.temporary(root)
    assert snapshot(root) == before
    assert sum(one.state == "mend" for one in found) == len(left)
    assert [one.text.split(":")[0] for one in found if one.state == "note"] == ["inputs/mine.tmp"]
    mended(found)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_temporary_puts_the_only_copy_of_a_folder_back(root: Path) -> None:
    """A kill between the two renames of a swap."""
    put(root / "data/.raw.old.tmp/documents.parquet", "old")
    put(root / "data/.raw.new.tmp/documents.parquet", "half")
    assert mended(temporaries.temporary(root)) == ["deleted", "put back as raw"]
    assert snapshot(root) == {"data/raw/documents.parquet": b"old"}


def test_temporary_leaves_a_state_that_a_training_holds(root: Path) -> None:
    put(root / ".tohum/state/key/.current.new.tmp/tensors.safetensors")
    put(root / ".tohum/state/key/.current.old.tmp/tensors.safetensors")
    put(root / ".tohum/state/key/current/tensors.safetensors")
    with put(root / ".tohum/state/key/lock", str(os.getpid())).open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert temporaries.temporary(root) == []
        (one,) = leftovers.states(root)
        assert f"in use by process {os.getpid()}" in one.text
    assert len(temporaries.temporary(root)) == 2
    (one,) = leftovers.states(root)
    assert "in use" not in one.text
    assert "continues it" in one.todo
    assert one.mend is None


def test_dvc_locks_are_changed_only_by_mend(root: Path) -> None:
    lock = put(root / ".dvc/tmp/rwlock", "")
    assert leftovers.dvc_locks(root) != []
    assert lock.read_text(encoding="utf-8") == ""
    (one,) = leftovers.dvc_locks(root)
    assert ".dvc/tmp/rwlock" in one.text
    assert str(root) not in one.text
    mended([one])
    assert leftovers.dvc_locks(root) == []
    put(root / "dvc.lock", "schema: '2.0'\nstages:\n  a: [")
    mended(leftovers.dvc_locks(root))
    assert leftovers.dvc_locks(root) == []


def test_dvc_locks_are_none_without_dvc(root: Path) -> None:
    assert leftovers.dvc_locks(root) == []


@pytest.fixture
def start(root: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts a stage that waits, in a project of its own; all are ended after the test."""
    put(root / "stages/__init__.py", "")
    put(root / "stages/waits.py", WAIT)
    put(root / "pipeline/orchestration/guard.py", (ROOT / "pipeline/orchestration/guard.py").read_text("utf-8"))
    running = []

    def begin(*command: str, session: bool = False, **more: str) -> subprocess.Popen[bytes]:
        (root / "running").unlink(missing_ok=True)
        environment = os.environ | more
        words = [sys.executable, "-m", *command]
        process = subprocess.Popen(words, cwd=root, start_new_session=session, env=environment)
        running.append(process)
        while not (root / "running").exists():
            assert process.poll() is None
            time.sleep(0.02)
        return process

    yield begin  # type: ignore[misc]
    for process in running:
        process.terminate()
        process.wait()


def test_orphans_are_stages_whose_guard_was_killed(root: Path, start: Callable[..., subprocess.Popen]) -> None:
    guard = start("pipeline.orchestration.guard", "stages.waits")
    by_hand = start("stages.waits")
    detached = start("stages.waits", session=True)  # by setsid, tmux or a service
    assert leftovers.orphans(root) == []
    orphan = start("stages.waits", session=True, TOHUM_GUARDED="1")
    put(root / "models/.base.new.tmp/model.safetensors")
    assert temporaries.temporary(root) == []  # a stage is running: it may be its own
    (one,) = leftovers.orphans(root)
    assert str(orphan.pid) in one.text
    assert orphan.poll() is None
    assert mended([one]) == ["ended"]
    orphan.wait()
    assert (guard.poll(), by_hand.poll(), detached.poll()) == (None, None, None)
    assert leftovers.orphans(root) == []


def test_undelivered_counts_records_and_delivers_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert leftovers.undelivered(root) == []
    texts = dict.fromkeys(("uid", "pipeline_uid", "stage", "experiment"), "run") | {"uri": "http://127.0.0.1:1"}
    event = {"event": "start", "time_ms": 1, "tags": {}, "params": {}} | texts
    put(root / ".tohum/tracking/run.jsonl", json.dumps(event) + "\n")
    (one,) = leftovers.undelivered(root)
    assert "1 runs" in one.text
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(leftovers.subprocess, "run", run)
    assert mended([one]) == ["delivered"]
    assert asked == [[sys.executable, "-m", "pipeline.tracking.sender", "--drain"]]


def test_set_aside_lists_copies(root: Path) -> None:
    put(root / ".tohum/fsck/20270131-101500/data/a.bin")
    put(root / ".tohum/dvc.lock.damaged")
    assert [one.text.split(":")[0] for one in leftovers.set_aside(root)] == [".tohum/fsck", ".tohum/dvc.lock.damaged"]


def test_packages_lists_differences_from_the_lock(root: Path) -> None:
    put(
        root / "requirements.lock",
        "pip==0.1 \\\n    --hash=sha256:00\nno-such-package==2.0\nother==1 ; sys_platform == 'x'\n",
    )
    (one,) = environment.packages(root)
    assert "instead of 0.1, no-such-package missing instead of 2.0" in one.text
    assert "other" not in one.text
    assert one.todo == "rm .venv/.ready && make setup"


def test_disk_reports_little_free_space(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    (one,) = environment.disk(root)
    assert one.state == "mend"
    assert "0.1 GB free" in one.text


def test_doctor_exits_with_1_while_something_is_left(
    root: Path, ended: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tohum("doctor") == 0
    assert "doctor: healthy" in capsys.readouterr().out
    left = put(root / f"data/.ledger.json.{ended}.tmp")
    assert tohum("doctor") == 1
    said = capsys.readouterr().out
    assert f"mend  temporary files  data/.ledger.json.{ended}.tmp" in said
    assert "tohum doctor --mend" in said
    assert left.exists()
    assert tohum("doctor", "--mend") == 0
    assert "deleted" in capsys.readouterr().out
    assert tohum("doctor") == 0


def test_doctor_counts_a_failed_mend(root: Path, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root / f"data/.ledger.json.{ended}.tmp")

    def full(path: Path) -> str:
        raise OSError("read-only file system")

    monkeypatch.setattr(temporaries, "remove", full)
    lines = doctor.examine(root, mend=True)
    assert [line.text for line in lines if line.state == "mend" and "read-only file system" in line.text]
