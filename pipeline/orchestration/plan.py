"""The plan of a run: the stages that `dvc repro` would run and why, and their time, memory and disk.

Reasons come from DVC's own status, old and new values from dvc.lock and params.yaml, minutes and memory from the
record of each stage's last run (reports/runs), disk from the sizes in dvc.lock. A training that never ran with these
settings is foretold from its shape, its records and a timing on this machine (forecasts.py), and refused where it does
not fit in memory. Any other stage that never ran has a question mark.
"""

import glob
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import config, files
from pipeline.orchestration import code_changes, forecasts, graph
from pipeline.paths import DVC_LOCK, RUNS

LOCK = DVC_LOCK
_ABSENT = object()
_SHOWN = 4


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan: the action, its reasons, and the costs of the last run (None: never run)."""

    stage: str
    action: str
    why: list[str]
    seconds: float | None
    memory_mib: float | None
    disk_bytes: int | None
    missing: tuple[str, ...] = ()
    """Missing inputs: a path, and the setting that names it."""
    refusal: str | None = None
    """The reason, in words, why its training cannot fit in this machine's memory."""
    at_most: bool = False
    """Whether seconds and memory are upper bounds: the lengths of its records are not known yet."""


def rows(wanted: graph.Graph, locked: dict[str, Any], params: dict[str, Any]) -> list[PlannedStage]:
    """One row per stage, in the order in which they run.

    Args:
        wanted: the graph, read with `restorable=True`.
        locked: the `stages` of dvc.lock.
        params: params.yaml as a dictionary.
    """
    affected = wanted.affected()
    planned = []
    for stage in wanted:
        entry = locked.get(stage.name, {})
        behind = wanted.stale_before(stage, affected)
        action, why = "cached", []
        if stage.changes:
            certain = stage.restorable and not behind
            action, why = "restore" if certain else "run", _reasons(stage, entry, params)
        elif behind:
            action, why = "may run", [f"after {', '.join(behind)}"]
        record = _record(stage.name)
        sizes = [out.get("size", 0) for out in entry.get("outs", [])]
        planned.append(
            PlannedStage(
                stage=stage.name,
                action=action,
                why=why,
                seconds=record.get("seconds_total"),
                memory_mib=record.get("peak_memory_mib"),
                disk_bytes=sum(sizes) if sizes else None,
                missing=(*stage.needs, *_missing(stage.name, params)) if action in ("run", "may run") else (),
            )
        )
    return planned


def _missing(stage: str, params: dict[str, Any]) -> Iterator[str]:
    """The files and folders that a stage's own settings name as `path` and that are not there."""
    section = stage.replace("@", ".", 1)
    yield from _absent(section, _at(params, section))


def _absent(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    path = value.get("path")
    # `path` of kind hub is a repository's name
    if isinstance(path, str) and value.get("kind") != "hub" and not _is_there(path):
        yield f"{path} ({name}.path)"
    for key, inner in value.items():
        yield from _absent(f"{name}.{key}", inner)


def _is_there(path: str) -> bool:
    """Whether a path is there, or a pattern matches something."""
    if Path(path).exists():
        return True
    return glob.has_magic(path) and next(glob.iglob(path, recursive=True), None) is not None


def _reasons(stage: graph.Stage, entry: dict[str, Any], params: dict[str, Any]) -> list[str]:
    """The reasons why a stage is stale, a line each; a stage that never ran has one."""
    if not entry:
        return ["not in dvc.lock" if stage.restorable else "never run"]
    lines = []
    for change in stage.changes:
        if change.kind == "parameter":
            old = entry.get("params", {}).get("params.yaml", {}).get(change.name, _ABSENT)
            differing = _differences(change.name, old, _at(params, change.name))
            lines += differing or [f"{change.name} {change.how}"]
        elif change.kind == "command":
            lines.append(f"command: {entry.get('cmd')} -> {stage.command}")
        else:
            lines.append(f"{'out ' if change.kind == 'out' else ''}{change.name} {change.how}")
    return lines


def _differences(name: str, old: Any, new: Any) -> list[str]:
    """The leaves in which two settings differ, as `name: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        parts = [_differences(f"{name}.{key}", old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys]
        return [line for part in parts for line in part]
    return [] if old == new else [f"{name}: {_shown(old)} -> {_shown(new)}"]


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _at(params: dict[str, Any], name: str) -> Any:
    """The setting at a dotted name, as DVC splits it; _ABSENT if there is none."""
    value: Any = params
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _record(stage: str) -> dict[str, Any]:
    path = RUNS / f"{stage}.json"
    try:
        record = files.read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def foretold(table: list[PlannedStage], locked: dict[str, Any], params: dict[str, Any]) -> list[PlannedStage]:
    """The rows with the costs of trainings as their settings now make them: by the last run, or by a forecast."""
    costs: dict[str, dict[str, Any]] = {}
    unknown = []
    for row in table:
        if row.action in ("run", "may run") and forecasts.is_training(row.stage):
            last = forecasts.last_run(row.stage, _record(row.stage), locked.get(row.stage, {}), params)
            if last is None:
                unknown.append(row.stage)
            else:
                costs[row.stage] = dict(zip(("seconds", "memory_mib"), last, strict=True))
    costs |= forecasts.foretell(unknown, params)
    return [_costing(row, costs[row.stage]) if row.stage in costs else row for row in table]


def _costing(row: PlannedStage, cost: Mapping[str, Any]) -> PlannedStage:
    """The row with the costs of a last run or of a forecast."""
    return replace(
        row,
        seconds=cost["seconds"],
        memory_mib=cost["memory_mib"],
        refusal=cost.get("refusal"),
        at_most=cost.get("at_most", False),
    )


def render(table: list[PlannedStage], free_bytes: int) -> str:
    """The plan as text: a line per stage that is touched, then the sums."""
    touched = [row for row in table if row.action != "cached"]
    cached = [row.stage for row in table if row.action == "cached"]
    lines = []
    if touched:
        width = max(len(row.stage) for row in touched)
        lines.append(f"{'stage':<{width}}  action   minutes  why")
        for row in touched:
            lines += _line(row, width)
    else:
        lines.append("nothing to run: every stage is up to date")
    if cached:
        lines.append(f"cached: {len(cached)} of {len(table)} ({', '.join(cached)})")
    lines += _sums(touched, free_bytes)
    if bounds := [row.stage for row in touched if row.at_most]:
        lines.append(
            f"<: at most, with every example as long as its task allows; the records of {', '.join(bounds)} are not "
            "there yet: plan again after `dvc repro download`"
        )
    lines += [f"refused: {row.refusal}" for row in touched if row.refusal is not None]
    lines += [f"missing: {path}, which {row.stage} reads" for row in touched for path in row.missing]
    return "\n".join(lines)


def _line(row: PlannedStage, width: int) -> Iterator[str]:
    minutes = (
        "0" if row.action == "restore" else "?" if row.seconds is None else f"{'<' * row.at_most}{row.seconds / 60:.1f}"
    )
    why = row.why[:_SHOWN] + ([f"and {len(row.why) - _SHOWN} more"] if len(row.why) > _SHOWN else [])
    for i, reason in enumerate(why or [""]):
        head = f"{row.stage:<{width}}  {row.action:<7}  {minutes:>7}" if i == 0 else " " * (width + 18)
        yield f"{head}  {reason}".rstrip()


def _sums(touched: list[PlannedStage], free_bytes: int) -> Iterator[str]:
    # stage code takes a second and keeps no record of it
    running = [row for row in touched if row.action != "restore" and row.stage != code_changes.STAGE]
    if running:
        known = [row.seconds for row in running if row.seconds is not None]
        minutes = f"at most {sum(known) / 60:.1f} min one after another" if known else "?"
        unknown = len(running) - len(known)
        yield f"expected: {minutes}" + (f", {unknown} never run" if unknown else "")
        memory = [row.memory_mib for row in running if row.memory_mib is not None]
        largest = max(running, key=lambda row: row.memory_mib or 0.0)
        named = f" ({largest.stage})" if memory else ""
        bound = "at most " if largest.at_most else ""
        yield f"peak memory of the largest stage: {bound}{f'{max(memory):.0f} MiB' if memory else '?'}{named}"
    sizes = [row.disk_bytes for row in touched if row.disk_bytes is not None]
    needed = "?" if touched and not sizes else f"about {sum(sizes) / 2**30:.2f} GiB"
    yield f"disk: {needed} needed, {free_bytes / 2**30:.1f} GiB free"
    if sum(sizes) > free_bytes:
        yield "warning: the disk is too small; `dvc gc --workspace` frees objects that this dvc.lock does not name"


def show(targets: Sequence[str] = ()) -> int:
    """Prints the plan of these stages and their upstream stages, or of the graph.

    Returns:
        1 where an input is missing or a training cannot fit in memory, else 0.

    Raises:
        UserError: a params.yaml or dvc.yaml that is not valid, or a target that names no stage.
    """
    config.load()
    wanted = graph.read(restorable=True)
    wanted = wanted.only(targets) if targets else wanted
    locked, params = read_yaml(LOCK).get("stages") or {}, read_yaml(config.PARAMS)
    planned = foretold(rows(wanted, locked, params), locked, params)
    print(render(planned, shutil.disk_usage(".").free))
    return 1 if any(row.missing or row.refusal for row in planned) else 0


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file read as DVC reads it (YAML 1.2: `1e-08` is a number, `no` a word); {} if it is not there."""
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content if isinstance(content, dict) else {}
