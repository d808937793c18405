"""Heads of the ledger noted outside MLflow: git notes of the project's repository, refs/notes/tohum-ledger.

Each decision appends a line `<ledger> <n> <hash> <model>` to the note of the present commit. The notes are commits of
their own: git's history shows if one was taken back, and they are shared as any ref is:

    git push origin refs/notes/tohum-ledger
    git fetch origin refs/notes/tohum-ledger:refs/notes/tohum-ledger

A repository may hold notes of another ledger, that of a second store or of one that was replaced. Its heads are held
against this ledger too until a person accepts the other one: a line `<ledger> accepts <other> <model>`.
"""

import contextlib
import fcntl
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.registry.ledger import Anchor, Entry

REF = "refs/notes/tohum-ledger"
_ACCEPTED = re.compile(r"(\w+) accepts (\w+) (.+)")
_LINE = re.compile(r"(\w+) (\d+) ([0-9a-f]{64}) (.+)")
_TRIES = 5
_COMMITTER = ("-c", "user.name=tohum", "-c", "user.email=tohum@localhost")  # git's identity proves nothing here


class Noted(NamedTuple):
    """A line of the notes."""

    ledger: str
    """Id of the ledger in its store."""
    anchor: Anchor


def add(ledger: str, entry: Entry) -> str:
    """Notes an entry as a head. Returns the reason where it could not be noted, else an empty text.

    Two processes that write the same ref at once wait for each other.
    """
    return _append(f"{ledger} {entry.n} {entry.hash} {entry.model}")


def _append(line: str, *more: str) -> str:
    """Appends a line, and others below it, to the note of the present commit; returns the reason where it cannot."""
    reason = ""
    for attempt in range(_TRIES):
        with _alone():
            code, _, error = _git("notes", f"--ref={REF}", "append", "-m", "\n".join([line, *more]), "HEAD")
        if code == 0 and line.rstrip() in _lines():  # another program may have written the ref over it
            return ""
        reason = (error.strip().splitlines() or ["the line is not in the notes after git wrote it"])[-1]
        if code != 0 and "lock" not in error and "update" not in error:
            break
        time.sleep(0.1 * 2**attempt)
    return reason


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One append at a time in this repository, all worktrees: `git notes` does not compare the ref before it writes."""
    code, folder, _ = _git("rev-parse", "--path-format=absolute", "--git-common-dir")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no repository, or a disk without locks: the line is read back
            if code == 0:
                stream = stack.enter_context((Path(folder.strip()) / "tohum-ledger.lock").open("a"))
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def read(ledger: str) -> tuple[list[Anchor], set[str]]:
    """The heads noted of one ledger, and the ids of other ledgers that are noted too; nothing outside a repository."""
    noted = _noted(_lines())
    mine = [line.anchor for line in noted if line.ledger == ledger]
    return mine, {line.ledger for line in noted} - {ledger}


def replaced(ledger: str, model: str, entries: Mapping[int, str]) -> list[str]:
    """Ids of other ledgers with a noted head of the model that this one does not hold, and that nobody accepted.

    Args:
        ledger: id of this ledger; empty where the store has none.
        model: name of the registered model.
        entries: number -> hash of its entries in this ledger.
    """
    lines = _lines()
    found = (_ACCEPTED.fullmatch(line) for line in lines)
    accepted = {line[2] for line in found if line and (line[1], line[3]) == (ledger, model)}
    others = {
        line.ledger
        for line in _noted(lines)
        if line.anchor.model == model and entries.get(line.anchor.n) != line.anchor.hash
    }
    return sorted(others - accepted - {ledger})


def accept(ledger: str, other: str, model: str, who: str, why: str) -> str:
    """Notes that a person takes this ledger beside or after another. Returns the reason where it could not be noted."""
    return _append(f"{ledger} accepts {other} {model}", " ".join(f"(accepted by {who}: {why})".split()))


def _noted(lines: list[str]) -> list[Noted]:
    found = (_LINE.fullmatch(line) for line in lines)
    return [Noted(line[1], Anchor(line[4], int(line[2]), line[3])) for line in found if line]


def _lines() -> list[str]:
    """The lines of all notes."""
    code, listed, _ = _git("notes", f"--ref={REF}", "list")
    if code != 0 or not listed.strip():
        return []
    blobs = "".join(f"{line.split()[0]}\n" for line in listed.splitlines())
    return _git("cat-file", "--batch", given=blobs)[1].splitlines()


def _git(*words: str, given: str | None = None) -> tuple[int, str, str]:
    """Exit code, output and errors of a git command; 127 without git."""
    try:
        done = subprocess.run(
            ["git", *_COMMITTER, *words],
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr
