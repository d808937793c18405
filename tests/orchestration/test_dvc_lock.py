"""DVC's locks after a kill: unrepaired, every later run stops until a person deletes a file by hand."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.orchestration import dvc_lock


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / dvc_lock.LOCKS).mkdir(parents=True)
    return tmp_path


def _rwlock(project: Path) -> Path:
    return project / dvc_lock.LOCKS / "rwlock"


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_repair_leaves_a_folder_without_dvc(tmp_path: Path) -> None:
    """Nothing to do is no error."""
    assert dvc_lock.repair(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b'{"read": {', b"\x00\x00", b'{"write": {"x": {}}}', b"[]", b'{"red": {}}', b"\xff"]
)
def test_repair_removes_a_damaged_rwlock(project: Path, content: bytes) -> None:
    """Empty, cut off, zeroed by a power cut, half an entry."""
    _rwlock(project).write_bytes(content)
    done = dvc_lock.repair(project)
    assert len(done) == 1
    assert "cut off by a kill" in done[0]
    assert not _rwlock(project).exists()


def test_repair_refuses_a_damaged_rwlock_while_dvc_runs(project: Path) -> None:
    """Taking a living process's lock away would let two runs write the same files."""
    (project / "dvc").write_text("import time; time.sleep(60)", encoding="utf-8")
    process = subprocess.Popen([sys.executable, "dvc", "repro"], cwd=project)
    try:
        time.sleep(0.3)
        _rwlock(project).write_bytes(b"")
        with pytest.raises(UserError, match=str(process.pid)):
            dvc_lock.repair(project)
        assert _rwlock(project).exists()
    finally:
        process.kill()
        process.wait()


def test_repair_removes_only_entries_of_ended_processes(project: Path) -> None:
    """Only what nobody owns is taken away."""
    own = psutil.Process().cmdline()[-1].split()[-1]
    living = {"pid": os.getpid(), "cmd": f"dvc {own}"}
    dead = {"pid": _dead_pid(), "cmd": "dvc repro"}
    _rwlock(project).write_text(json.dumps({"read": {"a": [dead, living]}, "write": {"b": dead}}))
    assert "2 entries of ended processes" in dvc_lock.repair(project)[0]
    assert json.loads(_rwlock(project).read_text()) == {"read": {"a": [living]}, "write": {}}


def test_repair_removes_an_entry_whose_process_id_was_reused(project: Path) -> None:
    """After a restart of the container number 1 is another process; DVC alone would wait for it."""
    _rwlock(project).write_text(json.dumps({"read": {}, "write": {"b": {"pid": 1, "cmd": "dvc repro"}}}))
    assert "1 entries" in dvc_lock.repair(project)[0]


LOCK = """\
schema: '2.0'
stages:
  one:
    cmd: python -m one --out no
    deps:
    - path: inputs/ışık.txt
      hash: md5
      md5: b1946ac92492d2347c6235b4d2611184
      size: 6
    params:
      params.yaml:
        no: 1
        fan.left:
          rate: 1e-08
    outs:
    - path: no
      hash: md5
      md5: d05505bb0d5c42a82c08b5d7f92dba7a.dir
      size: 8
      nfiles: 1
  fan@left:
    cmd: sh left
    outs:
    - path: left
      hash: md5
      md5: 18c78682465be18e7e18006b226cdb97
      size: 10
  fan@right:
    cmd: sh right
    deps:
    - path: left
      hash: md5
      md5: 18c78682465be18e7e18006b226cdb97
      size: 10
"""


def test_repair_removes_a_dvc_lock_without_a_whole_stage(project: Path) -> None:
    """DVC writes it in place; a kill at that moment must not need a person."""
    (project / "dvc.lock").write_text("schema: '2.0'\nstages:\n  one:\n    cmd: [sle", encoding="utf-8")
    assert "no whole stage is left in it" in dvc_lock.repair(project)[0]
    assert not (project / "dvc.lock").exists()
    assert (project / ".tohum" / "dvc.lock.damaged").read_text(encoding="utf-8").endswith("[sle")


def test_repair_keeps_the_whole_stages_of_a_damaged_dvc_lock(project: Path) -> None:
    """Else every stage runs again because the last one was cut off."""
    (project / "dvc.lock").write_text(LOCK[: LOCK.index("  fan@right:") + 40], encoding="utf-8")
    (said,) = dvc_lock.repair(project)
    assert "fan@right" in said
    assert "its 2 whole stages are kept" in said
    assert (project / "dvc.lock").read_text(encoding="utf-8") == LOCK[: LOCK.index("  fan@right:")]


def test_repair_leaves_a_dvc_lock_that_dvc_accepts_after_any_cut(project: Path) -> None:
    """Every fifth place of a small lock file; tests/torture/dvc_lock_cuts.py asks DVC itself, 300 times."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml

    whole, path = LOCK.encode(), project / "dvc.lock"
    assert dvc_lock.problem(whole) is None
    repaired = 0
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place])
        repaired += bool(dvc_lock.repair(project))
        if path.exists():
            lock = parse_yaml(path.read_text(encoding="utf-8"), str(path))
            COMPILED_LOCKFILE_SCHEMA(lock)
            entries = [one for stage in lock.get("stages", {}).values() for one in stage.get("outs", [])]
            assert {one.get("hash", "md5") for one in entries} <= {"md5"}
    assert 50 < repaired < len(whole) / 5


@pytest.mark.parametrize(
    "lock",
    [
        "", "schema: '2", "schema: '3.0'\n", "schema: '2.0'\nstages:\n", "schema: '2.0'\nstages:\n  one:\n",
        "schema: '2.0'\nstages:\n  one:\n    cmd: x\n    outs:\n    - path: a\n      hash: m\n",
        "schema: '2.0'\nstages:\n  one:\n    cmd: x\n    outs:\n    - path: a\n      md5: 18\n",
        "schema: '2.0'\nstages:\n  one:\n    cmd: x\n    params:\n      params.yaml:\n",
        "schema: '2.0'\nstages:\n  one:\n    cmd: x\n<<<<<<< HEAD\n", "schema: '2.0'\nstages: {a: {cmd: x, more: 1}}\n",
    ],
)  # fmt: skip
def test_problem_finds_each_file_that_dvc_refuses(lock: str) -> None:
    assert dvc_lock.problem(lock.encode())


def test_repair_removes_a_folder_in_the_place_of_a_lock(project: Path) -> None:
    _rwlock(project).mkdir()
    (project / "dvc.lock").mkdir()
    assert len(dvc_lock.repair(project)) == 2
    assert not _rwlock(project).exists()
    assert not (project / "dvc.lock").exists()


def test_repair_leaves_sound_files(project: Path) -> None:
    """The usual case: nothing is said, nothing is changed."""
    (project / "dvc.lock").write_text("schema: '2.0'\nstages:\n  one:\n    cmd: x\n", encoding="utf-8")
    _rwlock(project).write_text('{"read": {}, "write": {}}', encoding="utf-8")
    before = _rwlock(project).stat().st_mtime_ns
    assert dvc_lock.repair(project) == []
    assert _rwlock(project).stat().st_mtime_ns == before
