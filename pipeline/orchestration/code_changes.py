"""Stages that an edit of the code makes stale, computed before stage `code` has run.

DVC compares a stage with its file in data/code, which is as old as the last run of stage `code`. Here the files are
computed as that stage would write them now, and compared with the hashes in dvc.lock. Nothing is written.
"""

import hashlib
import json
from pathlib import Path

import yaml

from pipeline import closure, config
from pipeline.paths import CODE_OF_STAGES, DVC_YAML, PARAMS

STAGE = "code"


def expected(root: Path) -> dict[str, str]:
    """Stage -> the text of its file in data/code if stage `code` ran now, in the project at `root`.

    Raises:
        UserError: params.yaml, or a source file, that cannot be read.
    """
    graph = yaml.safe_load((root / DVC_YAML).read_text(encoding="utf-8"))
    found = closure.stages(config.load(root / PARAMS), graph, root)
    return {stage: closure.rendered(code) for stage, code in found.items()}


def path_of(stage: str) -> str:
    """The stage's file in data/code, as dvc.yaml names it."""
    return (CODE_OF_STAGES / f"{stage}.json").as_posix()


def md5_of(text: str) -> str:
    """DVC's hash of a file with this text."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def last_written(stage: str, root: Path) -> str | None:
    """The output of stage `code` for this stage when it last ran."""
    try:
        return (root / path_of(stage)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def changes(stage: str, text: str, locked: str | None, root: Path) -> dict[str, str]:
    """Source file -> how it changed since the stage ran; empty where its code is the same.

    Args:
        text: the output of stage `code` if it ran now.
        locked: DVC's hash of its output for the stage's last run; null: never run.
    """
    if locked is None or md5_of(text) == locked:
        return {}
    before = last_written(stage, root)
    if before is None or md5_of(before) != locked:  # not there, or written since for a run that has not taken place
        return {path_of(stage): "modified"}
    old, new = json.loads(before), json.loads(text)
    names = sorted({*old, *new})
    how = {name: "new" if name not in old else "left out" if name not in new else "modified" for name in names}
    return {name: how[name] for name in names if old.get(name) != new.get(name)}
