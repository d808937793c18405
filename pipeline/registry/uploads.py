"""Uploads: a packed version goes into the store once, whatever killed the one before."""

import contextlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.registry import card as model_card
from pipeline.registry import contents
from pipeline.registry.card import Facts
from pipeline.registry.contents import Contents
from pipeline.registry.packing import pack
from pipeline.registry.store import MODEL, VERSION, Store
from pipeline.tracking import artifact_location, lineage

_DESCRIPTION = 4900  # MLflow's column holds 5000 characters


def create(store: Store, name: str, facts: Facts, folder: Path) -> ModelVersion:
    """Uploads the packed model once and makes a version of it; an upload that a kill orphaned is used again."""
    client = store.client
    experiment = experiment_of(store)
    run_id = _maker(store, facts, experiment)
    card = model_card.render(facts, name)
    with tempfile.TemporaryDirectory(prefix="tohum-") as scratch:
        packed = Path(scratch) / "model"
        sealed = pack(folder, packed, facts.task, facts.sha256, card, facts.metrics)
        stored = _orphan(store, experiment, sealed) or upload(store, name, facts, packed, sealed, experiment, run_id)
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name)  # there already, or the next call says why not
    tags = {MODEL: sealed.model_sha256, VERSION: sealed.version_sha256, "tohum.model": facts.model, **facts.tags}
    tags |= {f"gate.{gate}": lineage.verdict_summary(v) for gate, v in facts.gates.items()}
    if uid := facts.runs.get(facts.stages[-1], {}).get("run_uid"):
        tags["tohum.run_uid"] = uid
    if len(card) > _DESCRIPTION:
        card = card[:_DESCRIPTION] + "\n\n(cut; whole in model_card.md)"
    return client.create_model_version(
        name, f"models:/{stored.model_id}", run_id, tags, description=card, model_id=stored.model_id
    )


def _orphan(store: Store, experiment: str, sealed: Contents) -> Any:
    """An upload of the same files that no version was made of, if it is whole."""
    query = f"params.{VERSION} = '{sealed.version_sha256}' and tags.`tohum.by` = 'upload'"
    for one in store.client.search_logged_models([experiment], query):
        if str(one.status) == "READY":
            with contextlib.suppress(UserError), store.stored(f"models:/{one.model_id}") as folder:
                if contents.check(folder, "upload", one.model_id) == sealed:
                    return one
    return None


def upload(
    store: Store, name: str, facts: Facts, packed: Path, sealed: Contents, experiment: str, run_id: str | None
) -> Any:
    """A logged model with the packed files, ready; the run that made the bytes gets its scores."""
    client = store.client
    made = client.create_logged_model(
        experiment, name, run_id, tags={"tohum.by": "upload"}, model_type=facts.task.get("objective"),
        params={"sha256": sealed.model_sha256, VERSION: sealed.version_sha256, "path": f"models/{sealed.model}"},
    )  # fmt: skip
    client.log_model_artifacts(made.model_id, str(packed))
    if run_id is not None:
        now = int(datetime.now(UTC).timestamp() * 1000)
        client.log_batch(
            run_id,
            [
                mlflow.entities.Metric(key, value, now, 0, model_id=made.model_id)
                for key, value in facts.metrics.items()
            ],
        )
    return client.finalize_logged_model(made.model_id, "READY")


def experiment_of(store: Store) -> str:
    """The id of the project's experiment, made if there is none."""
    name = store.params.runtime.tracking.experiment
    found = store.client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    place = artifact_location.for_new_experiments(store.uri)
    return str(store.client.create_experiment(name, artifact_location=place))


def _maker(store: Store, facts: Facts, experiment: str) -> str | None:
    """The MLflow run of the stage that made the bytes, named by its (perhaps restored) run record."""
    uid = facts.runs.get(facts.stages[-1], {}).get("run_uid")
    if not uid:
        return None
    runs = store.client.search_runs([experiment], f"tags.`tohum.run_uid` = '{uid}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None
