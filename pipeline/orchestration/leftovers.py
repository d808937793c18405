"""Leftovers of killed processes in a project: DVC's locks, orphaned stages, params.yaml, records, training states.

Each is found without a change to the project, and its diagnosis can repair it. Temporary files: temporaries.py.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import UserError
from pipeline.orchestration import checkout, dvc_lock, guard, living
from pipeline.paths import QUEUE, STATE, WORK
from pipeline.tracking import outbox, sender

if TYPE_CHECKING:
    import psutil

_END_S = 30.0
"""Seconds that an orphan gets to save, as in pipeline/orchestration/guard.py."""


@dataclass(frozen=True)
class Diagnosis:
    """The finding of a check: to be repaired, or for information."""

    state: Literal["mend", "note"]
    text: str
    todo: str = ""
    """The next step as text; empty if there is none."""
    mend: Callable[[], str] | None = None
    """Performs the next step and returns a message; None where it must be done by hand."""


def dvc_locks(root: Path) -> list[Diagnosis]:
    """Damage that `dvc_lock.repair` would repair, found by repairing a copy of the lock files."""
    names = [".dvc/tmp/rwlock", "dvc.lock"]
    if not (root / dvc_lock.LOCKS).is_dir():
        return []
    with tempfile.TemporaryDirectory(prefix="tohum-") as scratch:
        (Path(scratch) / dvc_lock.LOCKS).mkdir(parents=True)
        for name in filter(lambda name: (root / name).exists(), names):
            path = root / name
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, Path(scratch) / name)
        try:
            repairs = dvc_lock.repair(Path(scratch))
        except UserError as error:
            repairs = [str(error)]
    lines = [line.replace(f"{scratch}/", "") for line in repairs]

    def mend() -> str:
        return "; ".join(dvc_lock.repair(root)) or "already in order"

    return [Diagnosis("mend", "; ".join(lines), "repair it", mend)] if lines else []


def orphans(root: Path) -> list[Diagnosis]:
    """Stages that run on although their guard was killed: they would write beside the next run."""
    diagnoses = []
    for process in living.processes(root):
        if not living.module(process.info["cmdline"]).startswith("stages.") or _guarded(process):
            continue
        text = f"process {process.pid} ({' '.join(process.info['cmdline'][1:])[:80]}): its guard is gone"
        diagnoses.append(Diagnosis("mend", text, f"kill {process.pid}", partial(_end, process)))
    return diagnoses


def flow_params(root: Path) -> list[Diagnosis]:
    """The params.yaml of a flow run with `profile` or `set` that was killed."""
    if not (root / checkout.BEFORE).exists() or living.holder(root / checkout.LOCK) is not None:
        return []

    def mend() -> str:
        with chdir(root):
            return "; ".join(checkout.put_back("of `tohum doctor`")) or "already in order"

    return [Diagnosis("mend", "params.yaml is that of a killed flow run", "put the one from before back", mend)]


def undelivered(root: Path) -> list[Diagnosis]:
    """Records of runs that the sender has not delivered to MLflow."""
    runs, waiting = outbox.waiting(root / QUEUE)
    if not runs:
        return []
    text = f"{runs} runs, {size(waiting)} not delivered to MLflow"
    if sender.__name__ in living.modules(root):
        return [Diagnosis("note", f"{text}; the sender delivers them now")]
    command = [sys.executable, "-m", sender.__name__, "--drain"]
    return [Diagnosis("mend", text, "tohum deliver", partial(_run, root, command, "delivered"))]


def states(root: Path) -> list[Diagnosis]:
    """Saved states of trainings that did not end: equal inputs continue them, so they are listed and kept."""
    diagnoses = []
    for folder in sorted(path for path in (root / STATE).glob("*") if path.is_dir()):
        saved = []
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # a training removes its oldest state meanwhile
                if path.name not in ("lock", "run_uid") and stat.S_ISREG((status := path.stat()).st_mode):
                    saved.append(status)
        if saved:
            newest = max(status.st_mtime for status in saved)
            holder = living.holder(folder / "lock")
            total = size(sum(status.st_size for status in saved))
            by = f", in use by process {holder}" if holder else ", in use" if holder == 0 else ""
            todo = "" if by else "the same `dvc repro` continues it; delete it if you will not run it again"
            diagnoses.append(Diagnosis("note", f"{STATE / folder.name}: {total}, {age(newest)} old{by}", todo))
    return diagnoses


def set_aside(root: Path) -> list[Diagnosis]:
    """Copies that `tohum fsck --mend` and the repair of dvc.lock moved away."""
    diagnoses = []
    for path in (root / WORK / "fsck", root / WORK / "dvc.lock.damaged"):
        if path.exists():
            inside = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
            total = size(sum(file.stat().st_size for file in inside))
            text = (
                f"{path.relative_to(root)}: {len(inside)} files, {total}, moved away by fsck or the repair of dvc.lock"
            )
            diagnoses.append(Diagnosis("note", text, "some may be the only copy: delete it once you miss nothing"))
    return diagnoses


def _guarded(process: "psutil.Process") -> bool:
    """Whether a stage has its guard, or never had one: a guard gives its stage a session of its own, and marks it."""
    import psutil

    try:
        if os.getsid(process.pid) != process.pid or guard.MARK not in process.environ():
            return True
        parent = process.parent()
        return parent is not None and living.module(parent.cmdline()) == guard.__name__
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
    """Runs a command of the project; returns `done` if it succeeds, else raises UserError."""
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise UserError((ended.stderr or ended.stdout).strip()[-300:] or f"exit code {ended.returncode}")
    return done


def size(count: int) -> str:
    """Bytes as megabytes."""
    return f"{count / 1e6:,.1f} MB"


def age(when: float) -> str:
    """The time since a moment (seconds since the epoch), in minutes, hours or days."""
    hours = max(time.time() - when, 0) / 3600
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
