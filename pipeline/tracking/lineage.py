"""Where a result comes from: the git commit, DVC's hashes of inputs, the gates' verdicts, the pipeline.

Everything here reads what lies on disk and never fails for what is missing: a lineage with holes is still
worth keeping, and the registry, which insists, checks for itself.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.paths import CODE_OF_STAGES, DVC_LOCK, GATES
from pipeline.tracking import dvc_hash

LOCK = DVC_LOCK
CODE = ("pipeline/", "stages/", f"{CODE_OF_STAGES.as_posix()}/")


def git_state(root: Path = Path(".")) -> dict[str, str]:
    """`{"git.commit": 40 hex digits, "git.dirty": "true"|"false"}`; empty outside a git repository."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def dvc_inputs(stage: str, root: Path = Path(".")) -> dict[str, str]:
    """Dependency path -> DVC's hash of it, for one stage of dvc.yaml: the data, not the code, which git names.

    `stage` as DVC calls it (`finetune@spam-lora`). The hashes are those that dvc.lock records once the stage has run;
    until then its entry there is the one of the previous run, so they are read from the outs of the stages before it,
    which `dvc repro` has just written, or computed (pipeline.tracking.dvc_hash).
    """
    outs = dvc_outs(root)
    data = [path for path in stage_deps(stage, root) if not path.startswith(CODE)]
    return {path: digest for path in data if (digest := dvc_hash.of(path, outs, root))}


def dvc_outs(root: Path = Path(".")) -> dict[str, str]:
    """Path -> hash of every out that dvc.lock records."""
    stages = _yaml(root / LOCK).get("stages") or {}
    return {
        out["path"]: out[out.get("hash", "md5")]
        for entry in stages.values()
        for out in entry.get("outs") or []
        if out.get(out.get("hash", "md5"))
    }


def stage_deps(stage: str, root: Path = Path(".")) -> list[str]:
    """The resolved `deps` of one stage of dvc.yaml; empty if there is no such stage."""
    return _resolved(stage, _yaml(root / "dvc.yaml"), _yaml(root / "params.yaml"), ("deps",))


def stage_order(root: Path = Path(".")) -> list[str]:
    """Every stage of dvc.yaml, each after those that it waits for, ties by name: the order of the graph.

    Without DVC, for tables that a stage's report shows. Empty where dvc.yaml cannot be read.
    """
    graph, params = _yaml(root / "dvc.yaml"), _yaml(root / "params.yaml")
    names = list(_stage_names(graph, params))
    deps = {name: _resolved(name, graph, params, ("deps",)) for name in names}
    outs = {name: _resolved(name, graph, params, ("outs", "metrics", "plots")) for name in names}
    waits = {name: {other for other in names if other != name and _overlap(deps[name], outs[other])} for name in names}
    found: list[str] = []
    while ready := [name for name in names if name not in found and waits[name].issubset(found)]:
        found.append(min(ready))
    return found


def _stage_names(graph: dict[str, Any], params: dict[str, Any]) -> Iterator[str]:
    for name, entry in (graph.get("stages") or {}).items():
        if isinstance(entry, dict) and "do" in entry:
            yield from (f"{name}@{key}" for key in _items(entry, params))
        else:
            yield str(name)


def _items(entry: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Key -> item of a `foreach`."""
    items = entry.get("foreach")
    if isinstance(items, str):
        items = _look_up(items.strip("${} "), params)
    if isinstance(items, dict):
        return items
    # DVC names what is no plain value by its place.
    return {str(i if isinstance(item, dict | list) else item): item for i, item in enumerate(items or [])}


def _resolved(stage: str, graph: dict[str, Any], params: dict[str, Any], sections: tuple[str, ...]) -> list[str]:
    """The paths in these sections of a stage, templates filled in."""
    name, _, key = stage.partition("@")
    entry = (graph.get("stages") or {}).get(name) or {}
    values = params
    if "do" in entry:
        values = params | {"key": key, "item": _items(entry, params).get(key)}
        entry = entry["do"]
    paths = [path for section in sections for one in entry.get(section) or [] for path in _paths(one)]
    return [re.sub(r"\$\{([^}]*)\}", lambda m: str(_look_up(m.group(1).strip(), values)), path) for path in paths]


def _paths(entry: Any) -> list[str]:
    """A path as dvc.yaml writes it: alone, or as the key of its options."""
    return [str(path) for path in entry] if isinstance(entry, dict) else [str(entry)]


def _overlap(deps: list[str], outs: list[str]) -> bool:
    """Whether a dependency is an out, lies in one, or holds one."""
    pairs = ((f"{dep}/", f"{out}/") for dep in deps for out in outs)
    return any(dep.startswith(out) or out.startswith(dep) for dep, out in pairs)


def gate_verdicts(root: Path = Path(".")) -> dict[str, str]:
    """Gate or model -> `passed`, `passed, N waived` or `failed`, from reports/gates."""
    found = {}
    for path in sorted((root / GATES).glob("*/verdict.json")):
        try:
            verdict = files.read_json(path)
            found[path.parent.name] = verdict_summary(verdict)
        except (OSError, ValueError):
            continue
    return found


def verdict_summary(verdict: dict[str, Any]) -> str:
    """One verdict in a few words."""
    waived = len(waived_expectations(verdict))
    words = "passed" if verdict.get("passed") is True else "failed"
    return f"{words}, {waived} waived" if waived else words


def waived_expectations(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of a verdict that passed only because a waiver covers them."""
    return [
        entry
        for value in verdict.values()
        if isinstance(value, list)
        for entry in value
        if isinstance(entry, dict) and entry.get("waived")
    ]


def pipeline_uid() -> str | None:
    """Shared by every stage of one `dvc repro` or one flow run; None when neither started this process.

    The flow says so in TOHUM_PIPELINE_UID; under plain DVC it is a hash of the nearest dvc process's id and
    start time.
    """
    if uid := os.environ.get("TOHUM_PIPELINE_UID"):
        return uid
    try:
        import psutil
    except ImportError:  # a bare training box has no DVC either
        return None
    for parent in psutil.Process().parents():
        try:
            words = [Path(word).name for word in parent.cmdline()[:3]]
            if parent.name() == "dvc" or "dvc" in words:
                return hashlib.sha256(f"{parent.pid} {parent.create_time()}".encode()).hexdigest()[:32]
        except psutil.Error:
            continue
    return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            capture_output=True,
            timeout=10,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None


def _look_up(path: str, values: Any) -> Any:
    for step in path.split("."):
        values = values.get(step) if isinstance(values, dict) else None
    return values


def _yaml(path: Path) -> dict[str, Any]:
    try:
        # The C parser where there is one: dvc.lock is read at the start of every stage.
        found = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
