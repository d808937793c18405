"""Locks of trainings: one process for one set of inputs, and one for one model; removal of abandoned states.

A lock file is locked with flock, which the system releases when its process ends, and holds the process's id.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import remove
from pipeline.paths import LOCKS, STATE
from pipeline.training.state import State

ABANDONED_DAYS = 14
"""Age from which the states of an abandoned run are removed."""
OTHERS_KEPT = 20
"""Maximum number of other runs whose states are kept, newest first."""


@contextmanager
def locked(key: str, model: str | None = None) -> Iterator[State]:
    """The states of one fingerprint, locked exclusively, together with `models/<model>`.

    Raises:
        UserError: another process trains with the same inputs, or the same model.
    """
    with ExitStack() as held:
        if model is not None:
            busy = f"models/{model}: another process{{}} is training it; wait for it or stop it"
            held.enter_context(_alone(LOCKS / f"{model}.lock", busy))
        folder = STATE / key
        busy = f"{folder}: another process{{}} is training with the same inputs; wait for it or stop it"
        held.enter_context(_alone(folder / "lock", busy))
        prune(key)
        yield State(folder)


@contextmanager
def _alone(path: Path, busy: str) -> Iterator[None]:
    """Holds a lock file, which names its owner's process. Raises UserError (`busy`, {} for the process)."""
    while True:
        _make_room(path)
        with path.open("a+", encoding="utf-8", errors="replace") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                owner = handle.read(20).strip()
                raise UserError(busy.format(f" ({owner})" if owner.isdigit() else "")) from None
            if not _is_at(handle.fileno(), path):
                continue  # its owner removed it between our opening and our locking
            with suppress(OSError):  # a full disk: the process id is only informative
                handle.truncate(0)
                handle.write(str(os.getpid()))
                handle.flush()
            yield
            return


def _make_room(path: Path) -> None:
    """The lock's folder; anything else at its path or the lock's is removed: the folder is for locks only."""
    if path.parent.is_symlink() or path.parent.is_file():
        path.parent.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_dir():
        remove(path)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def prune(key: str) -> None:
    """Removes the states of other runs that are not locked: older than two weeks, or beyond the newest twenty."""
    others = [path for path in STATE.iterdir() if path.name != key and path.is_dir() and not path.is_symlink()]
    others.sort(key=_last_saved, reverse=True)
    kept = 0
    for folder in others:
        days, states = (time.time() - _last_saved(folder)) / 86400, State(folder).saved()
        kept += bool(states)
        if days > ABANDONED_DAYS or kept > OTHERS_KEPT or (not states and days > 1):
            _forget(folder, days, bool(states))


def _last_saved(folder: Path) -> float:
    """Time at which the newest state was saved, else at which the folder changed; now, if it is removed meanwhile."""
    try:
        return max(path.lstat().st_mtime for path in (State(folder).saved() or [folder]))
    except OSError:
        return time.time()


def _forget(folder: Path, days: float, said: bool) -> None:
    with suppress(UserError, OSError), _alone(folder / "lock", "in use{}"):
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "lock"):
            remove(path)
        folder.rmdir()
        if said:
            print(f"{folder}: states of a run not continued for {days:.0f} days removed", file=sys.stderr)
