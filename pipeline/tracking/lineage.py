"""Lineage of a result: the git commit, DVC's hashes of its inputs, the gates' verdicts, the pipeline.

Everything is read from disk, and missing files are no error: an incomplete lineage is still worth keeping, and the
registry, which needs a complete one, checks for itself.
"""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.config.params import Params
from pipeline.config.recipe import KINDS
from pipeline.paths import (
    CODE_OF_STAGES,
    DATA,
    DVC_LOCK,
    EVALUATION,
    GATES,
    INPUTS,
    MODELS,
    PROVENANCE,
    RAW,
    SAMPLES,
    TOKENIZER,
    TOKENS,
    TRAINING,
)
from pipeline.tracking import dvc_hash

CODE = ("pipeline/", "stages/", f"{CODE_OF_STAGES.as_posix()}/")
TICKETS = DATA / "tickets"
_LEDGER = RAW / "ledger.json"
_BASE = MODELS / "base"  # of a model that is stored as an adapter only
# The data that the stages without a recipe of their own read.
_INPUTS = {
    "download": [INPUTS],
    "validate@raw": [RAW, PROVENANCE, _LEDGER],
    "tokenize": [RAW / "documents.parquet", TICKETS / "raw/documents.json"],
    "validate@tokens": [TOKENS, RAW / "documents.parquet", TOKENS / "meta.json"],
    "sample": [
        *(RAW / f"{kind}.parquet" for kind in KINDS),
        TOKENS,
        TICKETS / "raw",
        TICKETS / "tokens/documents.json",
    ],
    "validate@samples": [SAMPLES, _LEDGER, TOKENIZER],
    "pretrain": [SAMPLES / "documents", TOKENIZER, TICKETS / "samples/documents.json"],
    "report": [EVALUATION, TRAINING, GATES, PROVENANCE, TOKENS, SAMPLES],
}


def git_state(root: Path = Path(".")) -> dict[str, str]:
    """`{"git.commit": 40 hex digits, "git.dirty": "true"|"false"}`; empty outside a git repository."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"git.commit": commit, "git.dirty": str(bool(changes)).lower()}


def input_hashes(stage: str, params: Params, root: Path = Path(".")) -> dict[str, str]:
    """Path -> DVC's hash of the data that a stage reads, as dvc.lock will record it once the stage has run.

    `stage` as DVC calls it (`finetune@spam-lora`). Until it has run, its entry in dvc.lock is that of the run before;
    so the hashes are read from the outs of the stages before it, which `dvc repro` has just written, or computed
    (pipeline.tracking.dvc_hash). The code is not among them: git.commit names it.
    """
    outs = dvc_outs(root)
    paths = dict.fromkeys(path.as_posix() for path in stage_inputs(stage, params))
    return {path: digest for path in paths if (digest := dvc_hash.of(path, outs, root))}


def is_code(path: str) -> bool:
    """Whether a dependency of dvc.yaml is code, or the list of a stage's code, and no data."""
    return f"{path}/".startswith(CODE)


def stage_inputs(stage: str, params: Params) -> list[Path]:
    """The data among a stage's dependencies; empty where no such stage is.

    dvc.yaml writes them with `${...}`, which only DVC resolves, in 0.4 s; a test compares both for every stage.
    """
    verb, _, name = stage.partition("@")
    if verb == "finetune" and (recipe := params.finetune.get(name)):
        start, reference, ticket = MODELS / recipe.start, MODELS / recipe.reference, f"{recipe.data}.json"
        judge = Path(recipe.judge.model_dump()["reads"])
        return [_BASE, start, reference, judge, SAMPLES / recipe.data, TICKETS / "samples" / ticket]
    if verb == "merge" and (merge := params.merge.get(name)):
        return [_BASE, MODELS / merge.of, MODELS / merge.first, MODELS / merge.second]
    if verb == "evaluate" and name in params.evaluations:
        return [_BASE, MODELS / name, SAMPLES]
    if verb == "validate-model" and name in params.evaluations:
        return [EVALUATION / name / "metrics.json"]
    return _INPUTS.get(stage, [])


def locked_inputs(stage: str, root: Path = Path(".")) -> dict[str, str]:
    """Path -> hash of the data that a stage read when it ran last, from dvc.lock; empty where it never ran."""
    entry = _locked(root).get(stage) or {}
    return {path: digest for path, digest in _hashes(entry.get("deps")).items() if not is_code(path)}


def dvc_outs(root: Path = Path(".")) -> dict[str, str]:
    """Path -> hash of every out that dvc.lock records."""
    return {path: digest for entry in _locked(root).values() for path, digest in _hashes(entry.get("outs")).items()}


def stage_order(root: Path = Path(".")) -> list[str]:
    """Every stage that has run, each after its upstream stages, ties by name: the order of DVC's graph.

    From dvc.lock, for tables that a stage's report shows. Empty where dvc.lock cannot be read.
    """
    stages = _locked(root)
    deps = {name: list(_hashes(entry.get("deps"))) for name, entry in stages.items()}
    outs = {name: list(_hashes(entry.get("outs"))) for name, entry in stages.items()}
    upstream = {
        name: {other for other in stages if other != name and _overlap(deps[name], outs[other])} for name in stages
    }
    order: list[str] = []
    while ready := [name for name in stages if name not in order and upstream[name].issubset(order)]:
        order.append(min(ready))
    return order


def _locked(root: Path) -> dict[str, dict[str, Any]]:
    """The stages of dvc.lock; empty where it cannot be read."""
    stages = _yaml(root / DVC_LOCK).get("stages")
    return {str(name): entry for name, entry in stages.items() if isinstance(entry, dict)} if stages else {}


def _hashes(entries: Any) -> dict[str, str]:
    """Path -> hash of the `deps` or `outs` of one stage in dvc.lock."""
    return {entry["path"]: digest for entry in entries or [] if (digest := entry.get(entry.get("hash", "md5")))}


def _overlap(deps: list[str], outs: list[str]) -> bool:
    """Whether a dependency is an out, lies in one, or holds one."""
    pairs = ((f"{dep}/", f"{out}/") for dep in deps for out in outs)
    return any(dep.startswith(out) or out.startswith(dep) for dep, out in pairs)


def gate_verdicts(root: Path = Path(".")) -> dict[str, str]:
    """Gate or model -> `passed`, `passed, N waived` or `failed`, from reports/gates."""
    verdicts = {}
    for path in sorted((root / GATES).glob("*/verdict.json")):
        try:
            verdict = files.read_json(path)
            verdicts[path.parent.name] = verdict_summary(verdict)
        except (OSError, ValueError):
            continue
    return verdicts


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
    """Id shared by the stages of one `dvc repro` or flow run; None when neither started this process.

    The flow sets TOHUM_PIPELINE_UID; under plain DVC it is a hash of the nearest dvc process's id and start time.
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


def _yaml(path: Path) -> dict[str, Any]:
    try:
        # The C parser where there is one: dvc.lock is read at the start of every stage.
        content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
