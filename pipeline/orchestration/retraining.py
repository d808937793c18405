"""Models that have learned from given records, the stages that run again without them, and their cost.

Stages and their inputs are those of dvc.lock; seconds and energy are those of each stage's last run (reports/runs).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.params import Params
from pipeline.config.recipe import Kind
from pipeline.data.standing import Place
from pipeline.orchestration.dvc_store import outs_and_deps
from pipeline.paths import DVC_LOCK, RUNS
from pipeline.tracking import lineage

# Outs of which a stage reads the part of one record kind: out -> the parts that change with that kind's records.
_PARTS = {
    "data/raw": ("data/raw/{kind}.parquet", "data/raw/ledger.json", "data/raw/provenance.json"),
    "data/tickets/raw": ("data/tickets/raw/{kind}.json",),
    "data/samples": ("data/samples/{kind}", "data/samples/ledger.json"),
    "data/tickets/samples": ("data/tickets/samples/{kind}.json",),
}


@dataclass(frozen=True)
class Rerun:
    """A stage that runs again, with the cost of its last run; None where that is not known."""

    stage: str
    seconds: float | None
    energy_wh: float | None
    energy_measured: bool


@dataclass(frozen=True)
class Learner:
    """A model that has seen the records."""

    model: str
    how: str
    """trained, chosen on validation, tested, or made from another model that has seen them."""
    windows: Mapping[str, Sequence[int]]
    """Of a model of packed documents: split -> numbers of the windows that hold them."""


def learners(params: Params, places: Sequence[Place]) -> list[Learner]:
    """The models of params.yaml that have seen records at these places, each after those that it was made from."""
    seen: dict[str, Learner] = {}
    order = sorted(params.evaluations, key=lambda model: len(params.lineage(model)))
    for model in order:
        recipe = params.pretrain if model == "base" else params.finetune.get(model)
        kind = "documents" if model == "base" else getattr(recipe, "data", None)
        own = [place for place in places if place.kind == kind]
        ancestors = [name for name in params.lineage(model)[:-1] if name in seen and seen[name].how != "tested"]
        windows: dict[str, list[int]] = {}
        if kind == "documents":
            length = params.pretrain.model.context_length
            for place in own:
                windows.setdefault(place.split, []).extend(place.windows(length))
        splits = {place.split for place in own}
        trains = recipe is not None and recipe.schedule.trains
        if trains and "train" in splits:
            how = "trained"
        elif ancestors:
            how = f"made from {ancestors[-1]}"
        elif "validation" in splits:
            how = "chosen on validation"
        elif own:
            how = "tested"
        else:
            continue
        seen[model] = Learner(model, how, {split: sorted(set(numbers)) for split, numbers in windows.items()})
    return list(seen.values())


def reruns(kinds: Collection[Kind], root: Path = Path()) -> list[Rerun]:
    """The stages of dvc.lock whose inputs change with the records of these kinds, each after those that it reads."""
    stages, changed, found = outs_and_deps(root / DVC_LOCK), set[str](), []
    for name in lineage.stage_order(root):
        deps, outs = stages[name]
        if name == "download" or any(_overlap(dep, path) for dep in deps for path in changed):
            changed |= set(_changed_parts(outs, kinds))
            found.append(_cost(name, root / RUNS))
    return found


def _changed_parts(outs: Iterable[str], kinds: Collection[Kind]) -> Iterable[str]:
    for out in outs:
        if out.startswith("reports/runs/"):
            continue  # nothing depends on a record of costs
        yield from (part.format(kind=kind) for kind in sorted(kinds) for part in _PARTS.get(out, (out,)))


def _overlap(first: str, second: str) -> bool:
    """Whether two paths are equal, or one lies in the other."""
    return f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")


def _cost(stage: str, runs: Path) -> Rerun:
    try:
        record: Any = files.read_json(runs / f"{stage}.json")
    except (OSError, ValueError):
        record = {}
    measured, estimated = record.get("energy_wh_measured"), record.get("energy_wh_estimated")
    energy = estimated if measured is None else measured
    return Rerun(stage, record.get("seconds_total"), energy, measured is not None)
