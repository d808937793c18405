"""The schema of dvc.lock: the reason why DVC would refuse a file, and the whole stages of a damaged one."""

import re
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


def whole_stages(data: bytes) -> tuple[bytes, list[str]]:
    """The lock file's stages that are good by themselves, as DVC writes them, and their names."""
    blocks = re.split(rb"(?m)^(?=  \S)", data)[1:]
    good: list[bytes] = []
    names: list[str] = []
    for block in (block if block.endswith(b"\n") else block + b"\n" for block in blocks):
        alone = _HEAD + block
        if problem(alone) is None:
            stages = _YAML.load(alone.decode("utf-8"))["stages"]
            if len(stages) == 1 and not set(stages) & set(names):
                good.append(block)
                names += stages
    return _HEAD + b"".join(good), names


def problem(data: bytes) -> str | None:
    """Why DVC would refuse this dvc.lock, or None: its own schema (dvc.schema.LOCKFILE_SCHEMA) and whole hashes.

    The same YAML reader as DVC's: by YAML 1.1 a path called `no` would be a boolean, not a text.
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
        isinstance(key, str) for key in [*params, *(key for values in params.values() for key in values)]
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
