"""DVC's locks after a kill: unrepaired, every later run stops until a person deletes a file by hand."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline import dvc_lock
from pipeline.config import UserError


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


def test_a_folder_without_dvc_is_left_alone(tmp_path: Path) -> None:
    """Nothing to do is no error."""
    assert dvc_lock.repair(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"read": {', b"\x00\x00", b'{"write": {"x": {}}}', b"[]"])
def test_a_damaged_lock_is_removed(project: Path, content: bytes) -> None:
    """Empty, cut off, zeroed by a power cut, half an entry."""
    _rwlock(project).write_bytes(content)
    done = dvc_lock.repair(project)
    assert len(done) == 1
    assert "cut off by a kill" in done[0]
    assert not _rwlock(project).exists()


def test_a_damaged_lock_is_kept_while_dvc_runs(project: Path) -> None:
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


def test_entries_of_ended_processes_go_and_living_ones_stay(project: Path) -> None:
    """Only what nobody owns is taken away."""
    own = psutil.Process().cmdline()[-1].split()[-1]
    living = {"pid": os.getpid(), "cmd": f"dvc {own}"}
    dead = {"pid": _dead_pid(), "cmd": "dvc repro"}
    _rwlock(project).write_text(json.dumps({"read": {"a": [dead, living]}, "write": {"b": dead}}))
    assert "2 entries of ended processes" in dvc_lock.repair(project)[0]
    assert json.loads(_rwlock(project).read_text()) == {"read": {"a": [living]}, "write": {}}


def test_a_process_number_given_to_somebody_else_blocks_nobody(project: Path) -> None:
    """After a restart of the container number 1 is another process; DVC alone would wait for it."""
    _rwlock(project).write_text(json.dumps({"read": {}, "write": {"b": {"pid": 1, "cmd": "dvc repro"}}}))
    assert "1 entries" in dvc_lock.repair(project)[0]


def test_a_damaged_dvc_lock_file_is_moved_aside(project: Path) -> None:
    """DVC writes it in place; a kill at that moment must not need a person."""
    (project / "dvc.lock").write_text("schema: '2.0'\nstages:\n  one:\n    cmd: [sle", encoding="utf-8")
    assert "moved to" in dvc_lock.repair(project)[0]
    assert not (project / "dvc.lock").exists()
    assert (project / ".tohum" / "dvc.lock.damaged").exists()


def test_sound_files_are_not_touched(project: Path) -> None:
    """The usual case: nothing is said, nothing is changed."""
    (project / "dvc.lock").write_text("schema: '2.0'\nstages:\n  one:\n    cmd: x\n", encoding="utf-8")
    _rwlock(project).write_text('{"read": {}, "write": {}}', encoding="utf-8")
    before = _rwlock(project).stat().st_mtime_ns
    assert dvc_lock.repair(project) == []
    assert _rwlock(project).stat().st_mtime_ns == before
