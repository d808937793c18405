"""Files are whole or not there: without it a full disk or a kill leaves a broken file under a good name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import UserError


def _half(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk full")


def test_replacing_keeps_the_old_file_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": "ışık"})
    assert path.read_bytes() == '{\n "a": "ışık",\n "b": 1\n}\n'.encode()
    with pytest.raises(OSError, match="full"), files.replacing(path) as temporary:
        _half(temporary)
    assert files.read_json(path) == {"a": "ışık", "b": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_replace_folder_keeps_the_old_folder_after_an_error(tmp_path: Path) -> None:
    with files.replace_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
    with pytest.raises(OSError, match="full"), files.replace_folder(tmp_path / "out") as folder:
        _half(folder / "x")
    assert (tmp_path / "out/x").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_write_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "m.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_sha256_of_a_folder_depends_on_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.sha256_of(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.sha256_of(tmp_path) != first


def test_replacing_removes_temporary_files_of_ended_processes_only(tmp_path: Path) -> None:
    """Else it stays for ever, and changes the hash of the folder that it lies in."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".a.json.{ended.pid}.tmp").touch()
    (tmp_path / f".a.json.{os.getppid()}.tmp").touch()
    (tmp_path / f".other.json.{ended.pid}.tmp").touch()
    files.write_json(tmp_path / "a.json", {})
    kept = {f".a.json.{os.getppid()}.tmp", f".other.json.{ended.pid}.tmp", "a.json"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_replace_folder_refuses_a_folder_that_another_process_writes(tmp_path: Path) -> None:
    """Two runs of one stage must not clear each other's half."""
    with files.replace_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
        with (
            pytest.raises(UserError, match="out: another process is writing it"),
            files.replace_folder(tmp_path / "out"),
        ):
            pass
    assert (tmp_path / "out/x").read_text() == "1"


@pytest.mark.parametrize("left", ["folder", "file", "link"])
def test_replace_folder_clears_leftovers_of_a_killed_process(tmp_path: Path, left: str) -> None:
    temporary = tmp_path / ".out.new.tmp"
    if left == "folder":
        temporary.mkdir()
        (temporary / "half").touch()
    elif left == "file":
        temporary.touch()
    else:
        temporary.symlink_to("nowhere")
    with files.replace_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replace_folder_restores_the_old_folder_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old", encoding="utf-8")
    renamed = Path.replace

    def replace(self: Path, target: Path) -> Path:
        done = renamed(self, target)
        if self == out:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt), files.replace_folder(out) as new:
        (new / "new").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]
