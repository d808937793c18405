"""Clears what a killed `dvc` leaves behind, so that no lock waits for a person: `python -m
pipeline.orchestration.dvc_lock`.

DVC notes who reads and writes which path in `.dvc/tmp/rwlock`. A kill while it writes that file leaves it
empty or cut off, and every later command stops with "JSON structure is corrupted". A kill elsewhere leaves
entries of a process that is gone; DVC forgives these only while nobody else was given the same process
number. dvc.lock is written in place too: of a damaged one the whole stages are kept, the rest runs again or
comes from DVC's run cache. `make repro`, the flow and `make doctor` run this first, and once a stage has
started, the guard runs it after DVC's end, however that came. Nothing of ours runs before the
first stage of a plain `dvc repro`.
"""

import argparse
import fcntl
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import files
from pipeline.errors import UserError

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
    if path.is_dir():
        files.remove(path)
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
        files.remove(path)
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
    if not path.exists() or problem(_read(path)) is None:
        return []
    _require_no_dvc(path, root)
    data = _read(path)  # a dvc that has ended since may have made it whole
    if (found := problem(data)) is None:
        return []
    whole, names = _whole_stages(data)
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
    return [f"{path}: damaged by a kill ({found}), copied to {aside}; {kept}, DVC runs or restores the others"]


def _read(path: Path) -> bytes:
    return b"" if path.is_dir() else path.read_bytes()


def _whole_stages(data: bytes) -> tuple[bytes, list[str]]:
    """The lock file's stages that are good by themselves, as DVC writes them, and their names."""
    blocks = re.split(rb"(?m)^(?=  \S)", data)[1:]
    good: list[bytes] = []
    names: list[str] = []
    for block in (block if block.endswith(b"\n") else block + b"\n" for block in blocks):
        one = _HEAD + block
        if problem(one) is None:
            stages = _YAML.load(one.decode("utf-8"))["stages"]
            if len(stages) == 1 and not set(stages) & set(names):
                good.append(block)
                names += stages
    return _HEAD + b"".join(good), names


def problem(data: bytes) -> str | None:
    """Why DVC would refuse this dvc.lock, or None: its own schema (dvc.schema.LOCKFILE_SCHEMA) and whole hashes.

    The same YAML reader as DVC's: by the rules of YAML 1.1 a path called `no` would be no text.
    """
    try:
        lock = _YAML.load(data.decode("utf-8"))
    except (YAMLError, ValueError, RecursionError) as error:
        return f"not YAML: {str(error).splitlines()[0]}"
    if not isinstance(lock, dict) or lock.get("schema") != "2.0":
        return "no schema '2.0'"
    if odd := set(lock) - {"schema", "stages", "datasets"}:
        return f"{sorted(map(str, odd))[0]} is no part of a lock file"
    stages = lock.get("stages", {})
    if not isinstance(stages, dict):
        return "stages is no map"
    for name, stage in stages.items():
        if not isinstance(name, str) or (reason := _stage_problem(stage)):
            return f"stage {name}: {reason if isinstance(name, str) else 'not a name'}"
    return None


def _stage_problem(stage: Any) -> str | None:
    if not isinstance(stage, dict) or set(stage) - {"cmd", "deps", "params", "outs"}:
        return "not a stage"
    if not isinstance(stage.get("cmd"), str | list):
        return "no cmd"
    for kind in ("deps", "outs"):
        entries = stage.get(kind, [])
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            return f"{kind} not whole"
    params = stage.get("params", {})
    by_file = isinstance(params, dict) and all(isinstance(values, dict) for values in params.values())
    if not by_file or not all(
        isinstance(key, str) for key in [*params, *(key for one in params.values() for key in one)]
    ):
        return "params not whole"
    return None


def _is_entry(entry: Any) -> bool:
    """Whether a dependency or an out has a path, known fields of the right type, and a hash of full length."""
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return False
    return all(name in _FIELDS and _FIELDS[name](value) for name, value in entry.items())


def _is_hash(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, str | int) and len(str(value)) >= 3)


def _is_md5(value: Any) -> bool:
    return not value or (isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{32}(\.dir)?", value) is not None)


def _is_int(value: Any) -> bool:
    return isinstance(value, int)


_YAML = YAML(typ="safe")
_HEAD = b"schema: '2.0'\nstages:\n"
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "path": lambda value: isinstance(value, str),
    "hash": lambda value: value in ("md5", "md5-dos2unix", "etag", "checksum"),
    "md5": _is_md5,
    "etag": _is_hash,
    "checksum": _is_hash,
    "size": _is_int,
    "nfiles": _is_int,
    "isexec": lambda value: isinstance(value, bool),
    "version_id": lambda value: isinstance(value, str),
    "cloud": lambda value: isinstance(value, dict),
    "files": lambda value: isinstance(value, list),
    "dataset": lambda value: isinstance(value, dict),
}


def _parsed(path: Path) -> dict[str, Any] | None:
    """The lock's two maps, or None if the file is damaged."""
    try:
        found = json.loads(path.read_bytes())
        if set(found) - {"read", "write"}:
            return None
        read, write = found.get("read", {}), found.get("write", {})
        for info in [*write.values(), *(info for infos in read.values() for info in infos)]:
            if set(info) != {"pid", "cmd"} or not isinstance(info["pid"], int) or not isinstance(info["cmd"], str):
                return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IsADirectoryError):
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


def running(root: Path) -> list[int]:
    """Process numbers of the dvc commands at work in a project."""
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


def main() -> int:
    """Repairs the project in the working directory; returns the exit code."""
    argparse.ArgumentParser(prog="python -m pipeline.orchestration.dvc_lock", description=__doc__).parse_args()
    try:
        for line in repair():
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
