"""Verification of a registered version against a project: every hash from the settings to the model, read anew.

Meant for another machine: the version's commit checked out, and what `dvc pull` gives. The chain of the version is
every stage that its model was made by. Of each the settings, the code, the inputs and the outs are compared with
dvc.lock, the outs by reading every byte; then dvc.lock with the tags of the version, and the model folder with the
version's files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.orchestration import code_changes, dvc_store
from pipeline.orchestration.dvc_scan import Scan
from pipeline.orchestration.plan import read_yaml
from pipeline.paths import DVC_LOCK, MODELS, PARAMS
from pipeline.tracking import lineage

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_IN, _OUT = "dvc.in.", "dvc.out."


@dataclass(frozen=True)
class Check:
    """One comparison."""

    what: str
    """The commit, a stage's settings, code, input or out, a tag of the version, or the model."""
    differs: str
    """The difference and the next step; empty where both are equal."""


def verify(version: "ModelVersion", params: Params, root: Path = Path()) -> Iterator[Check]:
    """Every comparison of a version with the project at `root`, from its commit to its model.

    Raises:
        UserError: dvc.lock cannot be read, or knows no stage that makes the version's model.
    """
    tags = dict(version.tags)
    model = tags.get("tohum.model", "")
    stages = read_yaml(root / DVC_LOCK).get("stages") or {}
    maker = maker_of(model, params)
    if maker not in stages:
        raise UserError(
            f"{version.name} version {version.version}: dvc.lock knows no stage {maker}, which makes {model!r}; check "
            f"out the version's commit {tags.get('git.commit', '(not recorded)')} and run `dvc pull`"
        )
    yield _commit(tags, root)
    chain = chain_of(maker, root)
    yield from _settings(chain, stages, root)
    yield from _code(chain, stages, root)
    outs = [out for out in dvc_store.outs(root) if out.stage in chain and not out.path.startswith("reports/runs/")]
    scan = Scan.of_outs(root, outs)
    for out in outs:
        found = [mismatch.sentence for mismatch in scan.in_workspace(out)]
        yield Check(f"{out.stage}: out {out.path}", "; ".join(found[:3]))
    locked = {path: md5 for _, path, md5 in _entries(chain, stages, "outs")}
    yield from _inputs(chain, stages, locked)
    yield from _tags(tags, maker, stages, model)
    yield _model(tags, root / MODELS / model)


def maker_of(model: str, params: Params) -> str:
    """The stage that makes a model."""
    if model == "base":
        return "pretrain"
    return f"merge@{model}" if model in params.merge else f"finetune@{model}"


def chain_of(stage: str, root: Path = Path()) -> list[str]:
    """The stage and all that it was made from, each after its upstream stages, by dvc.lock. Stage code is left out."""
    paths = dvc_store.outs_and_deps(root / DVC_LOCK)
    wanted, waiting = {stage}, [stage]
    while waiting:
        deps = paths[waiting.pop()][0]
        for other, (_, outs) in paths.items():
            if other not in (*wanted, code_changes.STAGE) and any(_overlap(dep, out) for dep in deps for out in outs):
                wanted.add(other)
                waiting.append(other)
    return [name for name in lineage.stage_order(root) if name in wanted]


def _overlap(first: str, second: str) -> bool:
    return f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")


def _commit(tags: dict[str, str], root: Path) -> Check:
    made, here = tags.get("git.commit"), lineage.git_state(root)
    if made is None:
        return Check("commit", "the version records none: it was made outside a git repository")
    if here.get("git.commit") != made:
        return Check(
            "commit", f"this is {here.get('git.commit', 'no git repository')}, the version's is {made}: check it out"
        )
    if "true" in (tags.get("git.dirty"), here.get("git.dirty")):
        where = "here" if here.get("git.dirty") == "true" else "where the version was made"
        return Check("commit", f"{made}, but with changes {where} that no commit holds")
    return Check("commit", "")


def _settings(chain: list[str], stages: dict[str, Any], root: Path) -> Iterator[Check]:
    """The settings of every stage in params.yaml, beside those of its last run."""
    now = read_yaml(root / PARAMS)
    for stage in chain:
        for name, old in (stages[stage].get("params", {}).get(PARAMS.as_posix()) or {}).items():
            new = _at(now, name)
            yield Check(
                f"{stage}: {name}", "" if new == old else f"params.yaml has other settings than the run: {name}"
            )


def _at(value: Any, name: str) -> Any:
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _code(chain: list[str], stages: dict[str, Any], root: Path) -> Iterator[Check]:
    """The code of every stage, by its fingerprint."""
    expected = code_changes.expected(root)
    for stage in chain:
        path = code_changes.path_of(stage)
        locked = next((dep.get("md5") for dep in stages[stage].get("deps") or [] if dep["path"] == path), None)
        changed = code_changes.changes(stage, expected.get(stage, ""), locked, root)
        shown = ", ".join(f"{name} {how}" for name, how in list(changed.items())[:3])
        yield Check(f"{stage}: code", f"other code than the run's: {shown}" if changed else "")


def _entries(chain: list[str], stages: dict[str, Any], key: str) -> Iterator[tuple[str, str, str]]:
    """(stage, path, hash) of the `deps` or `outs` of the chain in dvc.lock."""
    for stage in chain:
        for entry in stages[stage].get(key) or []:
            if md5 := entry.get(entry.get("hash", "md5")):
                yield stage, entry["path"], md5


def _inputs(chain: list[str], stages: dict[str, Any], locked: dict[str, str]) -> Iterator[Check]:
    """The inputs of every stage that are a whole out of another one: what was made is what was read."""
    for stage, path, md5 in _entries(chain, stages, "deps"):
        if path in locked and not lineage.is_code(path):
            differs = "" if locked[path] == md5 else f"it was {md5} when {stage} ran, dvc.lock now has {locked[path]}"
            yield Check(f"{stage}: input {path}", differs)


def _tags(tags: dict[str, str], maker: str, stages: dict[str, Any], model: str) -> Iterator[Check]:
    """The hashes in the version's tags, beside dvc.lock."""
    deps = {path: md5 for _, path, md5 in _entries([maker], stages, "deps")}
    outs = {path: md5 for _, path, md5 in _entries([maker], stages, "outs")}
    wanted = {tag: value for tag, value in tags.items() if tag.startswith((_IN, _OUT))}
    if not wanted:
        yield Check(f"tags of {model}", "the version records no hash of DVC: it was registered without dvc.lock")
    for tag, value in sorted(wanted.items()):
        path = tag.removeprefix(_IN).removeprefix(_OUT)
        here = (outs if tag.startswith(_OUT) else deps).get(path)
        yield Check(f"tag {tag}", "" if here == value else f"the version has {value}, dvc.lock {here}")


def _model(tags: dict[str, str], folder: Path) -> Check:
    """The model folder, beside the hash of the registered files."""
    expected = [tags[name] for name in ("model_sha256", "tohum.stored_sha256") if name in tags]
    if not folder.is_dir():
        return Check(f"model {folder}", "missing: `dvc pull`")
    found = files.sha256_of(folder)
    return Check(
        f"model {folder}", "" if found in expected else f"sha256 is {found}, the version's {' or '.join(expected)}"
    )
