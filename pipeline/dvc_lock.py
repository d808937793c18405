"""Clears what a killed `dvc` leaves behind, so that no lock waits for a person: `python -m
pipeline.dvc_lock`.

DVC notes who reads and writes which path in `.dvc/tmp/rwlock`. A kill while it writes that file leaves it
empty or cut off, and every later command stops with "JSON structure is corrupted". A kill elsewhere leaves
entries of a process that is gone; DVC forgives these only while nobody else was given the same process
number. dvc.lock is written in place too: a damaged one is moved aside, and DVC's run cache then restores its
stages without running them.
"""

import argparse
import fcntl
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.config import UserError

LOCKS = Path(".dvc/tmp")
WAIT_S = 10.0


def repair(root: Path = Path()) -> list[str]:
    """Mends DVC's lock files below `root` if no living process owns them; returns what was done, one line
    each.

    Raises:
        UserError: a damaged lock file while a dvc process that may own it is at work.
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
    with path.open("a+b") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"{path}: another process edits DVC's locks for {WAIT_S:.0f} s; end it") from None
                time.sleep(0.05)
        yield


def _repair_rwlock(path: Path, root: Path) -> list[str]:
    if not path.exists():
        return []
    found = _parsed(path)
    if found is None:
        _require_no_dvc(path, root)
        path.unlink()
        return [f"{path}: removed, it was cut off by a kill and no dvc process is alive"]
    written = path.stat().st_mtime
    read = {name: [info for info in infos if _owner_lives(info, written)] for name, infos in found["read"].items()}
    write = {name: info for name, info in found["write"].items() if _owner_lives(info, written)}
    kept = {"read": {name: infos for name, infos in read.items() if infos}, "write": write}
    gone = _count(found) - _count(kept)
    if gone:
        files.write_text(path, json.dumps(kept))
    return [f"{path}: {gone} entries of ended processes removed"] if gone else []


def _repair_lockfile(path: Path, root: Path) -> list[str]:
    if not path.exists():
        return []
    try:
        loaded = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        loaded = None
    if isinstance(loaded, dict) and isinstance(loaded.get("stages", {}), dict):
        return []
    _require_no_dvc(path, root)
    aside = root / ".tohum" / "dvc.lock.damaged"
    aside.parent.mkdir(exist_ok=True)
    path.replace(aside)
    return [f"{path}: damaged by a kill, moved to {aside}; DVC restores what it can from its run cache"]


def _parsed(path: Path) -> dict[str, Any] | None:
    """The lock's two maps, or None if the file is damaged."""
    try:
        found = json.loads(path.read_bytes())
        read, write = found.get("read", {}), found.get("write", {})
        for info in [*write.values(), *(info for infos in read.values() for info in infos)]:
            int(info["pid"]), str(info["cmd"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return {"read": read, "write": write}


def _count(locks: dict[str, Any]) -> int:
    return len(locks["write"]) + sum(map(len, locks["read"].values()))


def _owner_lives(info: dict[str, Any], written: float) -> bool:
    """Whether the process that took the entry still runs, and is not another one with the same number."""
    import psutil

    try:
        process = psutil.Process(int(info["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 1:
            return False
        last_word = (str(info["cmd"]).split() or [""])[-1]
        return last_word in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: it may be theirs
        return True


def _require_no_dvc(path: Path, root: Path) -> None:
    import psutil

    here = root.resolve()
    alive = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = [Path(word).name for word in (process.info["cmdline"] or [])[:4]]
        where = process.info["cwd"]
        if "dvc" in words and where and Path(where).is_relative_to(here):
            alive.append(process.info["pid"])
    if alive:
        raise UserError(f"{path} is damaged while dvc runs (process {alive}); wait for its end, or end it, and retry")


def main() -> int:
    """Repairs the project in the working directory; returns the exit code."""
    argparse.ArgumentParser(prog="python -m pipeline.dvc_lock", description=__doc__).parse_args()
    try:
        for line in repair():
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
