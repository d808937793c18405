"""Heads noted in git by several processes at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.paths import CODE
from pipeline.registry import anchors
from pipeline.registry.ledger import Entry

_WRITER = """
import sys
from types import SimpleNamespace
from pipeline.registry import anchors
for n in range(int(sys.argv[1]), int(sys.argv[1]) + 4):
    said = anchors.add("ledger", SimpleNamespace(n=n, hash=f"{n:064x}", model="spam"))
    assert said == "", said
"""


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], capture_output=True, check=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    return tmp_path


def test_add_keeps_every_line_when_processes_write_at_once(repository: Path) -> None:
    """Lost otherwise: `git notes append` writes the ref over the line that another process has just noted."""
    environment = os.environ | {"PYTHONPATH": str(CODE)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(start)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for start in (1, 5, 9, 13)
    ]
    assert [process.communicate(timeout=300)[1] for process in running if process.wait(timeout=300)] == []
    assert sorted(anchor.n for anchor in anchors.read("ledger")[0]) == list(range(1, 17))


def test_add_notes_the_line_again_when_another_program_wrote_the_ref_over_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that takes no lock, such as git itself, can do that in between."""
    entry = Entry(1, "spam", "approve", "1", "0" * 64, "ada", "login", "", "", "", None, {}, {}).sealed()
    real, lost = anchors._git, []

    def overwritten_once(*words: str, given: str | None = None) -> tuple[int, str, str]:
        answer = real(*words, given=given)
        if "append" in words and not lost:
            lost.append(words)
            git("update-ref", "-d", anchors.REF)
        return answer

    monkeypatch.setattr(anchors, "_git", overwritten_once)
    assert anchors.add("ledger", entry) == ""
    assert len(lost) == 1
    assert [anchor.hash for anchor in anchors.read("ledger")[0]] == [entry.hash]
