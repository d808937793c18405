"""Forecasts of trainings that have not run with these settings: peak memory, seconds, and whether they fit.

One process times them all (pipeline/training/forecast.py); each forecast is kept in .tohum/forecasts under a key of all
that it depends on, so that a second `tohum plan` starts nothing.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.orchestration.process import Processes, StageError
from pipeline.paths import MODELS, RAW, SAMPLES, TOKENIZER, WORK

PREFIX = "forecast: "
FOLDER = WORK / "forecasts"
_TIMEOUT_S = 300.0
# Settings of a recipe that change neither the time of an update nor its memory.
_FREE = ("seed", "schedule", "validation", "optimizer", "weighting")


def is_training(stage: str) -> bool:
    """Whether a stage trains a model."""
    return stage == "pretrain" or stage.startswith("finetune@")


def foretell(stages: Sequence[str], params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Stage -> its forecast (memory_mib, seconds, refusal; at_most: an upper bound, its records are not there yet), for
    all of these trainings for which there is one.
    """
    kept, missing = {}, {}
    for stage in stages:
        key = _key(stage, params)
        forecast = _kept(stage, key)
        if forecast is None:
            missing[stage.replace("@", ".", 1)] = (stage, key)
        else:
            kept[stage] = forecast
    if not missing:
        return kept
    lines: list[str] = []
    # the forecasts before a failure count; the stage itself will say what is wrong
    with contextlib.suppress(StageError):
        Processes().run(["pipeline.training.forecast", *missing], timeout_s=_TIMEOUT_S, tell=lines.append)
    for line in lines:
        if line.startswith(PREFIX):
            forecast = json.loads(line.removeprefix(PREFIX))
            stage, key = missing[forecast["where"]]
            files.write_json(FOLDER / f"{stage}.json", {"key": key, "forecast": forecast})
            kept[stage] = forecast
    return kept


def last_run(
    stage: str, record: Mapping[str, Any], locked: Mapping[str, Any], params: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Seconds and MiB of a training by its last run, which had the same costs an update; None if it had others.

    Args:
        stage: its name.
        record: reports/runs of the last run.
        locked: the stage's entry in dvc.lock.
        params: params.yaml.
    """
    old = locked.get("params", {}).get("params.yaml", {})
    section = stage.replace("@", ".", 1)
    before, now = old.get(section), _at(params, section)
    seconds, updates, peak = (record.get(name) for name in ("seconds_total", "training_seconds", "peak_memory_mib"))
    if not isinstance(before, dict) or not isinstance(now, dict) or seconds is None or peak is None:
        return None
    if _costs(before) != _costs(now) or old.get("compute", params.get("compute")) != params.get("compute"):
        return None
    was, will = (recipe.get("schedule", {}).get("steps", 0) for recipe in (before, now))
    if was != will and not (was and will and updates):
        return None
    scale = will / was if was != will else 1.0
    return seconds + (updates or 0.0) * (scale - 1.0), peak


def _costs(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide the cost of an update."""
    schedule, optimizer = recipe.get("schedule", {}), recipe.get("optimizer", {})
    return {name: value for name, value in recipe.items() if name not in _FREE} | {
        "accumulate": schedule.get("accumulate"),
        "epochs": schedule.get("epochs"),
        "optimizer": optimizer.get("name"),
    }


def _at(params: Mapping[str, Any], name: str) -> Any:
    value: Any = params
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _key(stage: str, params: Mapping[str, Any]) -> str:
    """A hash of the settings and of size and date of the files that a forecast depends on."""
    recipe = _at(params, stage.replace("@", ".", 1)) or {}
    kind = recipe.get("data", "documents")
    read = [TOKENIZER / "tokenizer.json", MODELS / str(recipe.get("from", "")) / "config.json", SAMPLES / kind]
    read.append(RAW / f"{kind}.parquet")
    names = ("compute", "tokenize", "split")
    facts = [stage, recipe, *(params.get(name) for name in names), _at(params, "pretrain.model")]
    facts += [_at(params, "pretrain.start"), [_state(path) for path in read], os.cpu_count()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _state(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _kept(stage: str, key: str) -> dict[str, Any] | None:
    try:
        content = files.read_json(FOLDER / f"{stage}.json")
    except (OSError, ValueError):
        return None
    same = isinstance(content, dict) and content.get("key") == key
    return content["forecast"] if same and isinstance(content.get("forecast"), dict) else None
