"""Temporary files and folders that killed processes left in a project, and how each is cleaned up.

A path that a living process may still use is left out: a file whose name or lock names a living process, and, where the
name has no process, every path while a stage runs in this folder.
"""

import os
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipeline.orchestration import living
from pipeline.orchestration.leftovers import Diagnosis, age, size
from pipeline.paths import REGISTRY, STATE
from pipeline.tracking import sender

_FILE = re.compile(r"\..+\.(\d+)\.tmp")
_FRESH = re.compile(r"\..+\.new\.tmp")
_ASIDE = re.compile(r"\.(.+)\.old\.tmp")
_SCRATCH = re.compile(r"tmp\w{8}")
_SKIPPED = {".git", ".dvc", ".venv", "__pycache__", "mlruns", "mlartifacts", "node_modules"}


def temporary(root: Path) -> list[Diagnosis]:
    """Temporary files and folders of `files.replacing` and `files.replace_folder` whose writer is gone."""
    modules = [name for name in living.modules(root) if name != sender.__name__]
    busy = any(name.startswith(("stages.", "pipeline.")) for name in modules)
    diagnoses = (_diagnosis(path, root, busy) for path in _temporaries(root))
    return [diagnosis for diagnosis in diagnoses if diagnosis]


def _temporaries(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        here = Path(place)
        yield from (here / name for name in sorted(names) if name.endswith(".tmp"))
        for name in sorted(folders):
            if name.endswith(".tmp") or (here == root / REGISTRY and _SCRATCH.fullmatch(name)):
                yield here / name
            elif name not in _SKIPPED and not (here / name / "params.yaml").exists():  # otherwise a separate project
                continue
            folders.remove(name)


def _diagnosis(path: Path, root: Path, busy: bool) -> Diagnosis | None:
    name, text = path.name, f"{path.relative_to(root)}: {_described(path)}"
    if match := _FILE.fullmatch(name):
        return (
            None if living.wrote(int(match[1]), path) else Diagnosis("mend", text, "delete it", partial(remove, path))
        )
    in_state = root / STATE in path.parents
    if _used(path, root) if in_state else busy:
        return None
    if match := _ASIDE.fullmatch(name):
        original = path.with_name(match[1])
        if original.exists():
            return Diagnosis("mend", f"{text}, replaced by {match[1]}", "delete it", partial(remove, path))
        return Diagnosis("mend", f"{text}, and {match[1]} is gone: it is the only copy", "put it back",
                         partial(_put_back, path, original))  # fmt: skip
    if _FRESH.fullmatch(name) or _SCRATCH.fullmatch(name):
        return Diagnosis("mend", f"{text}, never finished", "delete it", partial(remove, path))
    return Diagnosis("note", f"{text}, not named as this project names temporary files")


def _used(path: Path, root: Path) -> bool:
    """Whether the training state that a path lies in is locked."""
    key = path.relative_to(root / STATE).parts[0]
    return living.holder(root / STATE / key / "lock") is not None


def remove(path: Path) -> str:
    """Deletes a file or folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    return "deleted"


def _put_back(path: Path, original: Path) -> str:
    path.replace(original)
    return f"put back as {original.name}"


def _described(path: Path) -> str:
    try:
        inside = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        return f"{size(sum(file.stat().st_size for file in inside))}, {age(path.stat().st_mtime)} old"
    except OSError:
        return "unreadable"
