"""Heads of the ledger noted outside MLflow: git notes of the project's repository, refs/notes/tohum-ledger.

Each decision appends a line `<ledger> <n> <hash> <model>` to the note of the present commit. The notes are commits of
their own: git's history shows if one was taken back, and they are shared as any ref is:

    git push origin refs/notes/tohum-ledger
    git fetch origin refs/notes/tohum-ledger:refs/notes/tohum-ledger
"""

import re
import subprocess
import time
from typing import NamedTuple

from pipeline.registry.ledger import Anchor, Entry

REF = "refs/notes/tohum-ledger"
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
    line = f"{ledger} {entry.n} {entry.hash} {entry.model}"
    reason = ""
    for attempt in range(_TRIES):
        code, _, error = _git("notes", f"--ref={REF}", "append", "-m", line, "HEAD")
        if code == 0:
            return ""
        reason = (error.strip().splitlines() or ["git gave no reason"])[-1]
        if "lock" not in error and "update" not in error:
            break
        time.sleep(0.1 * 2**attempt)
    return reason


def read(ledger: str) -> tuple[list[Anchor], set[str]]:
    """The heads noted of one ledger, and the ids of other ledgers that are noted too; nothing outside a repository."""
    noted = _lines()
    mine = [line.anchor for line in noted if line.ledger == ledger]
    return mine, {line.ledger for line in noted} - {ledger}


def _lines() -> list[Noted]:
    code, listed, _ = _git("notes", f"--ref={REF}", "list")
    if code != 0 or not listed.strip():
        return []
    blobs = "".join(f"{line.split()[0]}\n" for line in listed.splitlines())
    _, text, _ = _git("cat-file", "--batch", given=blobs)
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return [Noted(line[1], Anchor(line[4], int(line[2]), line[3])) for line in found if line]


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
