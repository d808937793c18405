"""Erasure of records: the plan (what holds them, which models have learned from them, what retraining costs), the list
of forgotten records, and the proof that nothing holds them any more.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import integrity
from pipeline.config import edit
from pipeline.config.params import Params
from pipeline.data import forgotten, remains
from pipeline.data.erasure import Affected, Wanted, affected
from pipeline.data.records import SPLITS
from pipeline.data.remains import Remain
from pipeline.data.standing import Place, places
from pipeline.errors import UserError
from pipeline.orchestration import dvc_store
from pipeline.orchestration.dvc_samples import SampleVersions
from pipeline.orchestration.retraining import Learner, Rerun, learners, reruns
from pipeline.paths import (
    ANSWERS,
    DATA,
    DOWNLOADS,
    INPUTS,
    MEASURES,
    MODELS,
    PARAMS,
    RAW,
    REPORTS,
    SAMPLES,
    TOKENIZER,
    WORK,
)
from pipeline.studies.verification import maker_of
from pipeline.tokenizer import Tokenizer
from pipeline.tracking import lineage

if TYPE_CHECKING:
    from pipeline.registry.holders import Holder

LIST = INPUTS / "forget.txt"
"""The list that the first `--apply` makes."""
_COPIES = (ANSWERS, DOWNLOADS, WORK / "state", MEASURES, WORK / "registry")
"""Copies and caches outside DVC that may hold texts of records, trained weights included."""


@dataclass(frozen=True)
class Plan:
    """What forgetting some rows means."""

    records: list[Affected]
    not_found: list[str]
    """Rows of the request that no record is."""
    places: list[Place]
    learners: list[Learner]
    reruns: list[Rerun]
    versions: "list[Holder]"
    registry: str
    """The reason why the registry was not asked; empty if it was."""

    def as_json(self) -> dict[str, Any]:
        """The plan for a program."""
        kept = {name: [asdict(one) for one in getattr(self, name)] for name in ("records", "places", "learners")}
        kept |= {"reruns": [asdict(one) for one in self.reruns], "versions": [asdict(one) for one in self.versions]}
        seconds, energy = cost(self.reruns)
        return kept | {
            "not_found": self.not_found,
            "registry": self.registry,
            "states": training_states(self),
            "cost": {"seconds": seconds, "energy_wh": energy},
        }


def plan(wanted: Wanted, params: Params, root: Path = Path()) -> Plan:
    """Reads data/raw, data/samples, dvc.lock, run records and the registry; writes nothing.

    Raises:
        UserError: no record is one of the rows, or data/raw is not there or damaged.
    """
    for path in sorted((root / RAW).glob("*.parquet")):
        integrity.require_intact(path)
    records, missing = affected(wanted, root / RAW, params.sample.deduplicate)
    if not records:
        asked = ", ".join([*wanted.rows, *([f"consent {wanted.consent}"] if wanted.consent else [])])
        raise UserError(
            f"{RAW}: no record is {asked[:300]}; expected record ids, origins (file and line, as `origin` of "
            f"{RAW}/*.parquet has them) or the SHA-256 of a text"
        )
    ids = {record.id for record in records}
    standing = places(root / SAMPLES, ids)
    versions, reason = _versions(params, ids, root)
    return Plan(
        records=records,
        not_found=missing,
        places=standing,
        learners=learners(params, standing),
        reruns=reruns({record.kind for record in records}, root),
        versions=versions,
        registry=reason,
    )


def cost(stages: Sequence[Rerun]) -> tuple[float, float]:
    """Seconds and watt hours of these stages, as far as their last runs are recorded."""
    return sum(stage.seconds or 0.0 for stage in stages), sum(stage.energy_wh or 0.0 for stage in stages)


def _versions(params: Params, ids: set[str], root: Path) -> "tuple[list[Holder], str]":
    """The registered versions and their state, or the reason why they are not known."""
    uri = params.runtime.tracking.uri
    if uri.startswith("sqlite:///") and not (root / uri.removeprefix("sqlite:///")).is_file():
        return [], f"no model is registered: {uri} is not there"
    from pipeline.registry import Registry, reachable  # mlflow costs 3 s
    from pipeline.registry.holders import holders

    outs = lineage.dvc_outs(root)
    locked = {
        model: lineage.locked_inputs(maker_of(model, params), root)
        | ({"out": outs[f"models/{model}"]} if f"models/{model}" in outs else {})
        for model in params.evaluations
    }
    try:
        with reachable(uri):
            return holders(Registry(params), ids, SampleVersions(root).ids, locked), ""
    except UserError as error:
        return [], str(error)


def apply(made: Plan, params: Params) -> tuple[Path, list[str]]:
    """Writes the ids to the list that params.yaml names; without one, to inputs/forget.txt, and names it there.

    Returns:
        The list, and the ids that are new in it.
    """
    path = Path(params.download.forget or LIST)
    kinds = {record.id: record.kind for record in made.records}
    new = forgotten.add(path, kinds, {record.form: record.kind for record in made.records})
    if params.download.forget is None:
        edit.change(PARAMS, {"download.forget": path.as_posix()})
    return path, new


@dataclass(frozen=True)
class Proof:
    """The result of a check: what still holds a forgotten record, and which models were not trained since."""

    listed: int
    """Forgotten records."""
    remains: list[Remain]
    stale: list[str]
    """Stages whose inputs in dvc.lock are not the data as it is now."""
    older: list[str]
    """Pages and kept results that no stage writes anew, older than the list or the data: they may hold a part of a
    record."""
    files: int
    """Files whose content was searched: tables, documents, JSON and HTML."""
    unread: int
    """Other files: weights, and tokens of older versions, whose ids were searched in the table beside them."""

    @property
    def holds(self) -> bool:
        """Whether nothing is left."""
        return not (self.remains or self.stale or self.older)


def check(params: Params, root: Path = Path()) -> Proof:
    """Looks for the listed records in data/, models/, reports/ and kept results of measures, and in all versions of
    them that DVC's cache and remotes that are folders hold.

    Raises:
        UserError: params.yaml names no list, or the list or the samples cannot be read.
    """
    if params.download.forget is None:
        raise UserError(
            "params.yaml: download.forget is null: no record was forgotten; `tohum forget ROW --apply` begins a list"
        )
    listed = forgotten.read(root / params.download.forget)
    folders = (root / DATA, root / MODELS, root / REPORTS, root / MEASURES)
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    paths += [path for store in dvc_store.stores(root) for path in store.files()]
    tables = [path for path in paths if remains.is_parquet(path)]
    texts = [path for path in paths if remains.is_text(path)]
    found = list(remains.in_tables(tables, listed.ids))
    found += remains.in_texts(texts, listed)
    found += remains.in_documents(root / SAMPLES, listed.ids, Tokenizer.load(root / TOKENIZER))
    read = len(tables) + len(texts) + len(SPLITS)
    return Proof(len(listed.ids), found, _stale(params, root), _older(params, root), read, len(paths) - read)


def _stale(params: Params, root: Path) -> list[str]:
    """The stages that have not read the data as it is now: sampling and training, and of those that have ever run the
    gates, evaluations and report, whose files hold texts.
    """
    made = list(dict.fromkeys(maker_of(model, params) for model in params.evaluations))
    after = [f"{stage}@{model}" for stage in ("evaluate", "validate-model") for model in params.evaluations]
    waiting = []
    for stage in ("validate@raw", "validate@tokens", "sample", "validate@samples", *made, *after, "report"):
        locked, now = lineage.locked_inputs(stage, root), lineage.input_hashes(stage, params, root)
        if not locked and stage not in ("sample", *made):
            continue
        if not locked or any(now.get(path) != digest for path, digest in locked.items()):
            waiting.append(stage)
    return waiting


def _older(params: Params, root: Path) -> list[str]:
    """Files of reports/ that are no stage's out, and kept results of measures, from before the list or the data."""
    assert params.download.forget is not None
    since = max((root / params.download.forget).stat().st_mtime, (root / SAMPLES / "removed.parquet").stat().st_mtime)
    outs = [root / out for out in lineage.dvc_outs(root)]
    paths = sorted(path for folder in (REPORTS, MEASURES) for path in (root / folder).rglob("*") if path.is_file())
    return [
        path.as_posix()
        for path in paths
        if path.stat().st_mtime < since
        and path.name != ".gitignore"
        and not any(path.is_relative_to(out) for out in outs)
    ]


def pinned(made: Plan, params: Params) -> list[str]:
    """Sources whose pinned answers were written about a forgotten document, so that their hash changes."""
    documents = {record.source for record in made.records if record.kind == "documents"}
    names = []
    for name, source in params.download.sources.items():
        settings = source.settings("data/sources", f"download.sources.{name}")
        about = getattr(settings, "of", None)
        if about in documents and getattr(settings, "ask", None) and getattr(settings, "sha256", None):
            names.append(name)
    return names


def training_states(made: Plan, root: Path = Path()) -> list[str]:
    """Folders with kept training states of the models that have seen the records: weights trained on them, which the
    models' next training replaces.
    """
    paths = (MODELS / f"{learner.model}.states" for learner in made.learners)
    return [path.as_posix() for path in paths if any((root / path).glob("step-*"))]


def copies(root: Path = Path()) -> list[str]:
    """Folders outside DVC's cache that may hold texts of records or weights trained on them."""
    return [path.as_posix() for path in _COPIES if (root / path).is_dir() and any((root / path).iterdir())]
