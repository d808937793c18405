"""Registered versions whose models were trained on given records, by the hashes of their data in their tags."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from mlflow.entities.model_registry import ModelVersion

from pipeline.registry.store import CANDIDATE, CHAMPION, Store

_SAMPLES, _MODELS = "dvc.in.data/samples/", "dvc.in.models/"
State = Literal["trained on it", "not trained on it", "unknown"]
Ids = Callable[[str], frozenset[str] | None]
"""DVC's hash of the folder of one record kind -> ids of the records in it that training has read; None: not known."""


@dataclass(frozen=True)
class Holder:
    """A registered version and whether it was trained on one of the records."""

    name: str
    version: str
    aliases: tuple[str, ...]
    """candidate, champion: what is reviewed or served now."""
    state: State
    why: str


def holders(
    registry: Store, ids: Collection[str], contents: Ids, locked: Mapping[str, Mapping[str, str]]
) -> list[Holder]:
    """Every version of the project's models with its state, models by name, newest versions first.

    Args:
        registry: the store.
        ids: the records.
        contents: records of a version of the data.
        locked: model -> path -> DVC's hash of its data in the project as it is now, for the models that a version was
            made from and that are not registered.
    """
    versions = [version for model in registry.models() for version in registry.versions(model)]
    makers: dict[str, dict[str, str]] = {}
    for version in versions:  # hash of a model's folder -> hashes of the data that it was made from
        inputs = _inputs(version)
        for tag, digest in version.tags.items():
            if tag.startswith("dvc.out.models/"):
                makers[digest] = inputs
    for present in locked.values():
        if out := present.get("out"):
            makers.setdefault(out, {path: digest for path, digest in present.items() if path != "out"})
    aliases = {
        model: {alias: registry.at(model, alias) for alias in (CHAMPION, CANDIDATE)} for model in registry.models()
    }
    found = []
    for version in versions:
        state, why = _state(_inputs(version), set(ids), contents, makers)
        held = tuple(
            alias
            for alias, at in aliases[version.name].items()
            if at is not None and str(at.version) == str(version.version)
        )
        found.append(Holder(version.name, str(version.version), held, state, why))
    return found


def _inputs(version: ModelVersion) -> dict[str, str]:
    """Path -> hash of the data and models that a version was made from."""
    return {
        tag.removeprefix("dvc.in."): digest
        for tag, digest in version.tags.items()
        if tag.startswith((_SAMPLES, _MODELS))
    }


def _state(
    inputs: Mapping[str, str], ids: set[str], contents: Ids, makers: Mapping[str, Mapping[str, str]]
) -> tuple[State, str]:
    """Whether something that a version was made from holds a record, with the path that decides."""
    unknown = "" if inputs else "its tags name no data"
    waiting, done = list(inputs.items()), set[str]()
    while waiting:
        path, digest = waiting.pop()
        if digest in done:
            continue
        done.add(digest)
        if path.startswith("models/"):
            if digest in makers:
                waiting += makers[digest].items()
            else:
                unknown = unknown or f"made from {path} {digest[:8]}, whose data is not recorded here"
            continue
        known = contents(digest)
        if known is None:
            unknown = unknown or f"{path} {digest[:8]} is in no cache here; `dvc fetch --all-commits`, then ask again"
        elif held := known & ids:
            return "trained on it", f"{path} {digest[:8]} holds {len(held)} of them"
    return ("unknown", unknown) if unknown else ("not trained on it", "none of its data holds them")
