"""Uploads of packed versions to the store; an upload that was interrupted is completed, not repeated."""

import contextlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import UserError
from pipeline.registry import card as model_card
from pipeline.registry import contents
from pipeline.registry.card import Facts
from pipeline.registry.contents import Contents
from pipeline.registry.packing import pack
from pipeline.registry.store import MODEL, STORED, VERSION, Store
from pipeline.tracking import artifact_location, lineage

_DESCRIPTION = 4900  # MLflow's column holds 5000 characters


class Origin(NamedTuple):
    """The place of a model in MLflow's tracking."""

    experiment: str
    """Id of the project's experiment."""
    run_id: str | None
    """Id of the run that trained it, where it was tracked."""


def create(store: Store, name: str, facts: Facts, folder: Path) -> ModelVersion:
    """Uploads the packed model and makes a version of it; a complete upload without a version is used instead."""
    client = store.client
    experiment = experiment_of(store)
    origin = Origin(experiment, _training_run(store, facts, experiment))
    card = model_card.render(facts, name)
    with tempfile.TemporaryDirectory(prefix="tohum-") as scratch:
        packed = Path(scratch) / "model"
        sealed = pack(folder, packed, facts, card)
        stored = _complete_upload(store, experiment, sealed) or upload(store, facts, packed, sealed, origin)
    with contextlib.suppress(MlflowException):
        client.create_registered_model(name)  # exists already, or the next call raises the reason
    tags = {MODEL: sealed.model_sha256, VERSION: sealed.version_sha256, "tohum.model": facts.model, **facts.tags}
    tags |= {f"gate.{gate}": lineage.verdict_summary(v) for gate, v in facts.gates.items()}
    if sealed.model_sha256 != facts.sha256:
        tags[STORED] = facts.sha256
    if uid := facts.runs.get(facts.stages[-1], {}).get("run_uid"):
        tags["tohum.run_uid"] = uid
    if len(card) > _DESCRIPTION:
        card = card[:_DESCRIPTION] + "\n\n(cut; whole in model_card.md)"
    return client.create_model_version(
        name, f"models:/{stored.model_id}", origin.run_id, tags, description=card, model_id=stored.model_id
    )


def _complete_upload(store: Store, experiment: str, sealed: Contents) -> Any:
    """A logged model with exactly these files, from an earlier registration that was interrupted; None if none is."""
    query = f"params.{VERSION} = '{sealed.version_sha256}' and tags.`tohum.by` = 'upload'"
    for model in store.client.search_logged_models([experiment], query):
        if str(model.status) == "READY":
            with contextlib.suppress(UserError), store.stored(f"models:/{model.model_id}") as folder:
                if contents.check(folder, "upload", model.model_id) == sealed:
                    return model
    return None


def upload(store: Store, facts: Facts, packed: Path, sealed: Contents, origin: Origin) -> Any:
    """Uploads the packed files as a logged model; the run that trained it gets the scores."""
    client, run_id = store.client, origin.run_id
    model = client.create_logged_model(
        origin.experiment, store.name(facts.model), run_id,
        tags={"tohum.by": "upload"}, model_type=facts.tasks[0].name,
        params={"sha256": sealed.model_sha256, VERSION: sealed.version_sha256, "path": f"models/{sealed.model}"},
    )  # fmt: skip
    client.log_model_artifacts(model.model_id, str(packed))
    if run_id is not None:
        now = int(datetime.now(UTC).timestamp() * 1000)
        client.log_batch(
            run_id,
            [
                mlflow.entities.Metric(key, value, now, 0, model_id=model.model_id)
                for key, value in facts.metrics.items()
            ],
        )
    return client.finalize_logged_model(model.model_id, "READY")


def experiment_of(store: Store) -> str:
    """The id of the project's experiment, made if there is none."""
    name = store.params.runtime.tracking.experiment
    experiment = store.client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    place = artifact_location.for_new_experiments(store.uri)
    return str(store.client.create_experiment(name, artifact_location=place))


def _training_run(store: Store, facts: Facts, experiment: str) -> str | None:
    """Id of the MLflow run that trained the model, from its (perhaps restored) run record; None if there is none."""
    uid = facts.runs.get(facts.stages[-1], {}).get("run_uid")
    if not uid:
        return None
    runs = store.client.search_runs([experiment], f"tags.`tohum.run_uid` = '{uid}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None
