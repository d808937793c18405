"""Results of single measures, kept outside the outs, so that a new measure of a model does not repeat the others.

A file <key>.json holds the metrics, details and outcomes of one measure. The key is a SHA-256 of everything that
decides them: the model's folder, the samples, the measure's code and settings, the compute settings, torch's build and
the CPU. A file is used only if it is whole (its own SHA-256) and contains the key in its name; otherwise the measure
runs.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline import closure, files, integrity
from pipeline.config.recipe import Compute

ABANDONED_DAYS = 60
"""Age from which a result that was not used again is removed."""


class Result(NamedTuple):
    """The result of a measure."""

    metrics: dict[str, float]
    details: dict[str, Any]
    outcomes: list[dict[str, Any]] = []  # noqa: RUF012 - never changed
    """As JSON (pipeline.outcomes.plain)."""


def key_of(model_sha256: str, samples: Path, code: closure.Code, settings: dict[str, Any], compute: Compute) -> str:
    """Hash of everything that decides a measure's result."""
    parts = {
        "model": model_sha256,
        "samples": integrity.identity(samples),
        "code": code,
        "settings": settings,
        "compute": compute.model_dump(),
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read(folder: Path, key: str) -> Result | None:
    """The kept result of this key; None where there is none, or where it is damaged or another key's."""
    path = folder / f"{key}.json"
    result = _read(path, key)
    if result is not None:
        with suppress(OSError):  # in a read-only folder it only looks older than it is
            os.utime(path)
    return result


def keep(folder: Path, key: str, result: Result) -> None:
    """Keeps a result, unless the disk or JSON cannot hold it: the measure then runs again next time."""
    with suppress(OSError, ValueError, TypeError):
        text = json.dumps({"key": key, **result._asdict()}, ensure_ascii=False, allow_nan=False)
        # details that would be written in another order after they were read (numbers as keys) are not kept
        if _written(json.loads(text)["details"]) == _written(result.details):
            files.write_text(folder / f"{key}.json", f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")
    prune(folder)


def prune(folder: Path) -> None:
    """Removes the results that were not used for a long time."""
    for path in folder.glob("*.json"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_DAYS * 86400:
                path.unlink()


def _read(path: Path, key: str) -> Result | None:
    """A kept result; None where there is none, or where it is damaged or another key's."""
    try:
        head, text = path.read_text(encoding="utf-8").removesuffix("\n").split("\n", 1)
        if hashlib.sha256(text.encode()).hexdigest() != head:
            return None
        value = json.loads(text)
        return Result(*(value[name] for name in Result._fields)) if value["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _written(value: Any) -> str:
    """The value as a stage writes it (pipeline.files.write_json)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
