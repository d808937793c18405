"""Repair of the lock files that a killed `dvc` leaves damaged, without user action.

DVC records the readers and writers of each path in `.dvc/tmp/rwlock`. A kill while it writes that file leaves it empty
or cut off, and every later command stops with "JSON structure is corrupted". A kill at another moment leaves entries of
a process that is gone; DVC ignores these only while the process id is not in use again. dvc.lock is written in place
too: the whole stages of a damaged one are kept, the others run again or come from DVC's run cache.

`make repro`, the flow, `tohum prepare` and `tohum doctor --mend` do this, and the guard of a stage does it after DVC's
end, in every case (`python -m pipeline.orchestration.dvc_lock`). No code of ours runs before the first stage of a
plain `dvc repro`.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.entry import entry
from pipeline.errors import UserError
from pipeline.orchestration.dvc_lock_schema import problem, whole_stages

LOCKS = Path(".dvc/tmp")
WAIT_S = 10.0


def repair(root: Path = Path()) -> list[str]:
    """Repairs DVC's lock files below `root` if no living process owns them; returns a sentence for each repair.

    Raises:
        UserError: a damaged lock file while a dvc process runs that may own it.
    """
    if not (root / LOCKS).is_dir():
        return []
    with _editing(root / LOCKS / "rwlock.lock"):
        done = _repair_rwlock(root / LOCKS / "rwlock", root)
    return done + _repair_lockfile(root / "dvc.lock", root)


@contextmanager
def _editing(path: Path) -> Iterator[None]:
    """Holds the lock under which DVC edits rwlock. It is the kernel's, so a dead owner never keeps it."""
    deadline = time.monotonic() + WAIT_S
    if path.is_dir():
        files.remove(path)
    with path.open("a+b") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{path}: held by another process for {WAIT_S:.0f} s; end it, then run again"
                    ) from None
                time.sleep(0.05)
        yield


def _repair_rwlock(path: Path, root: Path) -> list[str]:
    if not path.exists():
        return []
    locks = _parsed(path)
    if locks is None:
        _require_no_dvc(path, root)
        files.remove(path)
        return [f"{path}: removed, it was cut off by a kill and no dvc process is alive"]
    written = path.stat().st_mtime
    read = {name: [info for info in infos if _owner_lives(info, written)] for name, infos in locks["read"].items()}
    write = {name: info for name, info in locks["write"].items() if _owner_lives(info, written)}
    kept = {"read": {name: infos for name, infos in read.items() if infos}, "write": write}
    gone = _count(locks) - _count(kept)
    if gone:
        files.write_text(path, json.dumps(kept))
    return [f"{path}: {gone} entries of ended processes removed"] if gone else []


def _repair_lockfile(path: Path, root: Path) -> list[str]:
    if not path.exists() or problem(_read(path)) is None:
        return []
    _require_no_dvc(path, root)
    data = _read(path)  # a dvc that has ended since may have made it whole
    if (reason := problem(data)) is None:
        return []
    whole, names = whole_stages(data)
    aside = root / ".tohum" / "dvc.lock.damaged"
    files.remove(aside)
    if path.is_dir():
        aside.parent.mkdir(exist_ok=True)
        path.replace(aside)
    else:
        with files.replacing(aside) as copy:
            copy.write_bytes(data)
    if names:
        with files.replacing(path) as mended:
            mended.write_bytes(whole)
        kept = f"its {len(names)} whole stages are kept"
    else:
        files.remove(path)
        kept = "no whole stage is left in it"
    return [f"{path}: damaged by a kill ({reason}), copied to {aside}; {kept}, DVC runs or restores the others"]


def _read(path: Path) -> bytes:
    return b"" if path.is_dir() else path.read_bytes()


def _parsed(path: Path) -> dict[str, Any] | None:
    """The lock's two maps, or None if the file is damaged."""
    try:
        locks = json.loads(path.read_bytes())
        if set(locks) - {"read", "write"}:
            return None
        read, write = locks.get("read", {}), locks.get("write", {})
        for info in [*write.values(), *(info for infos in read.values() for info in infos)]:
            if set(info) != {"pid", "cmd"} or not isinstance(info["pid"], int) or not isinstance(info["cmd"], str):
                return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IsADirectoryError):
        return None
    return {"read": read, "write": write}


def _count(locks: dict[str, Any]) -> int:
    return len(locks["write"]) + sum(map(len, locks["read"].values()))


def _owner_lives(info: dict[str, Any], written: float) -> bool:
    """Whether the process that took the entry still runs, and is not another process with the same id."""
    import psutil

    try:
        process = psutil.Process(int(info["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 1:
            return False
        last_argument = (str(info["cmd"]).split() or [""])[-1]
        return last_argument in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's process: it may be the owner
        return True


def running(root: Path) -> list[int]:
    """Process ids of the dvc commands that run in a project."""
    import psutil

    here = root.resolve()
    alive = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [Path(word).name for word in (process.info["cmdline"] or [])[:4]]
        where = process.info["cwd"]
        if "dvc" in words and where and Path(where).is_relative_to(here):
            alive.append(process.info["pid"])
    return alive


def _require_no_dvc(path: Path, root: Path) -> None:
    if alive := running(root):
        raise UserError(f"{path} is damaged while dvc runs (process {alive}); wait for its end, or end it, and retry")


def main() -> None:
    """Repairs the project in the working directory."""
    for line in repair():
        print(line)


if __name__ == "__main__":
    entry(main, again="`tohum prepare` repairs DVC's locks")
