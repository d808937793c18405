"""Heads noted in git by several writers at once."""

import subprocess
import threading
from pathlib import Path

import pytest

from pipeline.registry import anchors
from pipeline.registry.ledger import Entry

WRITERS = 8


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], capture_output=True, check=True)


def entry(n: int) -> Entry:
    return Entry(n, "spam", "approve", "1", "0" * 64, "ada", "login", "", "", "", None, {}, {}).sealed()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    return tmp_path


def test_add_keeps_every_line_when_several_write_at_once(repository: Path) -> None:
    """Lost otherwise: `git notes append` writes the ref over the line that somebody else has just noted."""
    together, said = threading.Barrier(WRITERS), []

    def note(n: int) -> None:
        together.wait()
        said.append(anchors.add("ledger", entry(n)))

    threads = [threading.Thread(target=note, args=(n,)) for n in range(1, WRITERS + 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [""] * WRITERS
    assert sorted(anchor.n for anchor in anchors.read("ledger")[0]) == list(range(1, WRITERS + 1))


def test_add_notes_the_line_again_when_another_program_wrote_the_ref_over_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that takes no lock, such as git itself, can do that in between."""
    real, lost = anchors._git, []

    def overwritten_once(*words: str, given: str | None = None) -> tuple[int, str, str]:
        answer = real(*words, given=given)
        if "append" in words and not lost:
            lost.append(words)
            git("update-ref", "-d", anchors.REF)
        return answer

    monkeypatch.setattr(anchors, "_git", overwritten_once)
    assert anchors.add("ledger", entry(1)) == ""
    assert len(lost) == 1
    assert [anchor.hash for anchor in anchors.read("ledger")[0]] == [entry(1).hash]
