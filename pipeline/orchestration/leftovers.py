"""What killed processes leave behind in a project, found without touching it; each finding knows how to mend itself.

Whatever a living process may still use is left out: a file whose name or lock names a living process, and, where no
name tells, everything while a stage runs in this folder.
"""

import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import UserError
from pipeline.orchestration import dvc_lock
from pipeline.paths import QUEUE, REGISTRY, STATE

if TYPE_CHECKING:
    import psutil

_FILE = re.compile(r"\..+\.(\d+)\.tmp")
_FRESH = re.compile(r"\..+\.new\.tmp")
_ASIDE = re.compile(r"\.(.+)\.old\.tmp")
_SCRATCH = re.compile(r"tmp\w{8}")
_ELSEWHERE = {".git", ".dvc", ".venv", "__pycache__", "mlruns", "mlartifacts", "node_modules"}
_END_S = 30.0
"""Seconds that an orphan gets to save, as in pipeline/orchestration/guard.py."""
MARK = "TOHUM_GUARDED"
"""In the environment of every stage under a guard: pipeline/orchestration/guard.py."""
STATES, QUEUE, REGISTRY = STATE, QUEUE, REGISTRY


@dataclass(frozen=True)
class Finding:
    """One thing that is left, or to know."""

    state: Literal["mend", "note"]
    says: str
    todo: str = ""
    mend: Callable[[], str] | None = None
    """Mends it and says what was done."""


def temporary(root: Path) -> list[Finding]:
    """Temporary files and folders of `files.replacing` and `files.replace_folder` whose writer is gone."""
    modules = [_module(one.info["cmdline"]) for one in _processes(root)]
    busy = any(name.startswith(("stages.", "pipeline.")) and name != "pipeline.tracking.sender" for name in modules)
    return [one for path in _temporaries(root) if (one := _temporary(path, root, busy))]


def dvc_locks(root: Path) -> list[Finding]:
    """Damage that `dvc_lock.repair` would mend, seen by repairing a copy of the lock files."""
    names = [".dvc/tmp/rwlock", "dvc.lock"]
    if not (root / dvc_lock.LOCKS).is_dir():
        return []
    with tempfile.TemporaryDirectory(prefix="tohum-") as scratch:
        (Path(scratch) / dvc_lock.LOCKS).mkdir(parents=True)
        for name in filter(lambda name: (root / name).exists(), names):
            path = root / name
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, Path(scratch) / name)
        try:
            said = dvc_lock.repair(Path(scratch))
        except UserError as error:
            said = [str(error)]
    lines = [line.replace(f"{scratch}/", "") for line in said]

    def mend() -> str:
        return "; ".join(dvc_lock.repair(root)) or "already in order"

    return [Finding("mend", "; ".join(lines), "python -m pipeline.orchestration.dvc_lock", mend)] if lines else []


def orphans(root: Path) -> list[Finding]:
    """Stages that run on although their guard was killed: they would write beside the next run."""
    found = []
    for process in _stages(root):
        if _guarded(process):
            continue
        says = f"process {process.pid} ({' '.join(process.info['cmdline'][1:])[:80]}): its guard is gone"
        found.append(Finding("mend", says, f"kill {process.pid}", partial(_end, process)))
    return found


def flow_params(root: Path) -> list[Finding]:
    """The params.yaml of a flow run with `profile` or `set` that was killed."""
    if not (root / ".tohum/flow/params.before.yaml").exists() or _holder(root / ".tohum/flow/lock") is not None:
        return []
    command = [sys.executable, "-m", "pipeline.orchestration.checkout"]
    return [Finding("mend", "params.yaml is that of a killed flow run", "python -m pipeline.orchestration.checkout",
                    partial(_run, root, command, "put back"))]  # fmt: skip


def undelivered(root: Path) -> list[Finding]:
    """Records of runs that the sender has not delivered to MLflow."""
    from pipeline.tracking.sender import waiting

    runs, size = waiting(root / QUEUE)
    if not runs:
        return []
    says = f"{runs} runs, {_size(size)} not delivered to MLflow"
    if any(_module(one.info["cmdline"]) == "pipeline.tracking.sender" for one in _processes(root)):
        return [Finding("note", f"{says}; the sender is at it")]
    command = [sys.executable, "-m", "pipeline.tracking.sender", "--drain"]
    return [
        Finding("mend", says, "python -m pipeline.tracking.sender --drain", partial(_run, root, command, "delivered"))
    ]


def states(root: Path) -> list[Finding]:
    """Saved states of trainings that did not end: equal inputs continue them, so they are listed and kept."""
    found = []
    for folder in sorted(path for path in (root / STATES).glob("*") if path.is_dir()):
        saved = []
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # a training removes its oldest state meanwhile
                if path.name not in ("lock", "run_uid") and stat.S_ISREG((status := path.stat()).st_mode):
                    saved.append(status)
        if saved:
            newest = max(status.st_mtime for status in saved)
            holder = _holder(folder / "lock")
            size = sum(status.st_size for status in saved)
            by = f", in use by process {holder}" if holder else ", in use" if holder == 0 else ""
            says = f"{STATES / folder.name}: {_size(size)}, {_age(newest)} old{by}"
            found.append(Finding("note", says, "" if by else "the same `dvc repro` continues it; delete it if never"))
    return found


def set_aside(root: Path) -> list[Finding]:
    """Copies that `make fsck` and the repair of dvc.lock put away."""
    found = []
    for path in (root / ".tohum/fsck", root / ".tohum/dvc.lock.damaged"):
        if path.exists():
            inside = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
            size = sum(one.stat().st_size for one in inside)
            says = f"{path.relative_to(root)}: {len(inside)} files, {_size(size)}, put away by fsck or a lock's repair"
            found.append(Finding("note", says, "some may be the only copy: delete it once you miss nothing"))
    return found


def _temporaries(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        here = Path(place)
        yield from (here / name for name in sorted(names) if name.endswith(".tmp"))
        for name in sorted(folders):
            if name.endswith(".tmp") or (here == root / REGISTRY and _SCRATCH.fullmatch(name)):
                yield here / name
            elif name not in _ELSEWHERE and not (here / name / "params.yaml").exists():  # else a project of its own
                continue
            folders.remove(name)


def _temporary(path: Path, root: Path, busy: bool) -> Finding | None:
    name, says = path.name, f"{path.relative_to(root)}: {_described(path)}"
    if match := _FILE.fullmatch(name):
        return None if _wrote(int(match[1]), path) else Finding("mend", says, "delete it", partial(_remove, path))
    in_state = root / STATES in path.parents
    if _used(path, root) if in_state else busy:
        return None
    if match := _ASIDE.fullmatch(name):
        original = path.with_name(match[1])
        if original.exists():
            return Finding("mend", f"{says}, replaced by {match[1]}", "delete it", partial(_remove, path))
        return Finding("mend", f"{says}, and {match[1]} is gone: it is the only copy", "put it back",
                       partial(_put_back, path, original))  # fmt: skip
    if _FRESH.fullmatch(name) or _SCRATCH.fullmatch(name):
        return Finding("mend", f"{says}, never finished", "delete it", partial(_remove, path))
    return Finding("note", f"{says}, not by this project's names")


def _used(path: Path, root: Path) -> bool:
    """Whether the training state that a path lies in is locked."""
    key = path.relative_to(root / STATES).parts[0]
    return _holder(root / STATES / key / "lock") is not None


def _holder(lock: Path) -> int | None:
    """The process that holds a lock file; 0 if its number is not readable, None if nobody holds it."""
    try:
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                words = re.findall(r"\d+", file.read(100))
                return int(words[0]) if words else 0
    except FileNotFoundError:
        return None


def _wrote(pid: int, path: Path) -> bool:
    """Whether the process that a temporary file is named after still runs, and began before the file did."""
    import psutil

    try:
        return psutil.Process(pid).create_time() <= path.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True


def _processes(root: Path) -> "list[psutil.Process]":
    """Living processes whose working directory is this project."""
    import psutil

    found, here = [], str(root.resolve())
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        if process.info["cwd"] == here and process.info["cmdline"] and process.pid != os.getpid():
            found.append(process)
    return found


def _stages(root: Path) -> "list[psutil.Process]":
    """Processes of `python -m stages.<name>`, guards left out."""
    found = [(one, _module(one.info["cmdline"])) for one in _processes(root)]
    return [one for one, module in found if module.startswith("stages.") and module != "pipeline.orchestration.guard"]


def _module(words: list[str]) -> str:
    """The module that a command line runs; empty if none."""
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def _guarded(process: "psutil.Process") -> bool:
    """Whether a stage has its guard, or never had one: a guard gives its stage a session of its own, and marks it."""
    import psutil

    try:
        if os.getsid(process.pid) != process.pid or MARK not in process.environ():
            return True
        parent = process.parent()
        return parent is not None and _module(parent.cmdline()) == "pipeline.orchestration.guard"
    except (psutil.Error, ProcessLookupError):
        return True


def _end(process: "psutil.Process") -> str:
    """Ends an orphan's whole group: it may have workers."""
    import psutil

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            if not process.is_running():
                break
            os.killpg(process.pid, number)
            process.wait(_END_S)
        except psutil.TimeoutExpired:
            continue
        except (ProcessLookupError, psutil.NoSuchProcess):
            break
    return "ended"


def _run(root: Path, command: list[str], done: str) -> str:
    """Runs a command of the project; `done` is what was achieved if it ends well."""
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise UserError((ended.stderr or ended.stdout).strip()[-300:] or f"exit code {ended.returncode}")
    return done


def _remove(path: Path) -> str:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return "deleted"


def _put_back(path: Path, original: Path) -> str:
    path.replace(original)
    return f"put back as {original.name}"


def _described(path: Path) -> str:
    try:
        inside = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        return f"{_size(sum(one.stat().st_size for one in inside))}, {_age(path.stat().st_mtime)} old"
    except OSError:
        return "unreadable"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _age(when: float) -> str:
    hours = max(time.time() - when, 0) / 3600
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
