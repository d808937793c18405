"""One MLflow store as the sender sees it: runs, batches of metrics, small files, models by reference.

Every call may be repeated: what is already there is found by its tag and not made again. Failures come out as
`AwayError` (try later) or `GoneError` (the run is no longer in the store); what the store will never take is
said in the log and left out. Importing this module imports mlflow; only the sender does.
"""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Our own patience is in the sender, with the lines safe on disk: mlflow shall give up quickly.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from pipeline import files
from pipeline.tracking import artifact_location, artifact_store, overview, store_file
from pipeline.tracking.tracker import ATTACHED

if TYPE_CHECKING:
    from pipeline.tracking.outbox import Cursor

BATCH = 1000
_PARAMS_A_CALL = 100
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
_TEXT = 5000
_NOTE, _NOTE_HASH = "mlflow.note.content", "tohum.note_sha256"
# MLflow 3.17 shows its pages for model training, not those for agents, where the experiment has this tag.
_KIND_TAG, _KIND = "mlflow.experimentKind", "custom_model_development"
_STORE_TAG = "tohum.store"
_SENTENCE = 300
# What a SQLite file says that is no database, is cut off or is another program's.
_DAMAGED = ("not a database", "malformed", "no such table", "no such column")


class AwayError(OSError):
    """The store cannot be reached or asks to come back later."""


class DamagedError(AwayError):
    """The store is there and is no database that this MLflow can use; waiting does not mend it."""


class GoneError(LookupError):
    """A run that was delivered before is no longer in the store."""


class Delivery:
    """A store and an experiment in it."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri = uri
        self._name = experiment
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._parents: dict[str, str] = {}
        self.store = ""
        """Identity of the store, known once connected: a cursor counts only for the store that it was moved in."""

    def open(self, start: dict[str, Any], cursor: "Cursor") -> bool:
        """Finds or makes the run of a `start` line below its pipeline's or search's; False if a person deleted it."""
        with _translated(self._uri):
            client = self._connect()
            parent, kind = self._parent(client, start), start.get("kind", "stage")
            cursor.run_id = self._find(client, "tohum.run_uid", start["uid"], kind, ViewType.ALL)
            tags = {
                "tohum.run_uid": start["uid"],
                "tohum.pipeline_uid": start["pipeline_uid"],
                "tohum.kind": kind,
            }
            if parent:
                tags["mlflow.parentRunId"] = parent
            if cursor.run_id is None:
                made = client.create_run(self._experiment, start["time_ms"], tags, start["stage"])
                cursor.run_id = made.info.run_id
            elif not self._is_active(cursor.run_id):
                return False
            before = client.get_run(cursor.run_id).data.tags.get("mlflow.parentRunId")
            client.update_run(cursor.run_id, status="RUNNING")
            self._texts(cursor.run_id, "tags", start["tags"] | tags)
            self._texts(cursor.run_id, "params", start["params"])
            if before and before != parent:  # continued under another pipeline; the first one ends without it
                self._end_parent(client, before, start["time_ms"])
        return True

    def send(self, cursor: "Cursor", events: list[dict[str, Any]]) -> int:
        """Delivers one file's lines in order; returns how many metrics."""
        pending: list[Metric] = []
        last: dict[str, Any] = {}
        active = cursor.run_id is not None and self._is_active(cursor.run_id)
        for event in events:
            kind = event.get("event")
            if kind == "start":
                active = self.open(event, cursor)
            if not active:
                continue  # a person deleted the run: its lines have nowhere to go
            assert cursor.run_id is not None
            if kind in ("metrics", "end"):
                pending += _metrics(event, cursor)
            elif kind in ("params", "tags"):
                self._texts(cursor.run_id, kind, event["values"])
            elif kind == "artifact":
                self._artifact(cursor.run_id, event)
            elif kind in ("page", "headline"):
                self._above(cursor.run_id, event)
            elif kind == "model":
                pending += self._model(cursor, event)
            last = event if kind in ("start", "end") else last
        with _translated(self._uri):
            for first in range(0, len(pending), BATCH):
                self._batch(str(cursor.run_id), metrics=pending[first : first + BATCH])
        if last:
            cursor.ended = False
        if last.get("event") == "end":
            self.end(cursor, last["status"], last["time_ms"])
        return len(pending)

    def end(self, cursor: "Cursor", status: str, time_ms: int) -> None:
        """Closes a run, and its pipeline's run with the worst status of the stages so far."""
        cursor.ended = True
        if cursor.run_id is None or not self._is_active(cursor.run_id):
            return
        with _translated(self._uri):
            client = self._connect()
            client.set_terminated(cursor.run_id, status, time_ms)
            tags = client.get_run(cursor.run_id).data.tags
            if tags.get("tohum.kind") == "stage":  # a search says itself when it ends
                self._end_parent(client, tags["mlflow.parentRunId"], time_ms)
                self._describe(client, tags["mlflow.parentRunId"])

    def _above(self, run_id: str, event: dict[str, Any]) -> None:
        """A page or figures of the whole pipeline, on the run above this one; what is there already is left."""
        with _translated(self._uri):
            client = self._connect()
            parent = client.get_run(run_id).data.tags.get("mlflow.parentRunId")
            if parent is None or not self._is_active(parent):
                return
            if event["event"] == "page":
                self._artifact(parent, event)
                return
            known = client.get_run(parent).data.metrics
            fresh = {key: value for key, value in event["values"].items() if known.get(key) != value}
            self._batch(parent, metrics=[Metric(key, value, event["time_ms"], 0) for key, value in fresh.items()])

    def _describe(self, client: MlflowClient, parent: str) -> None:
        """The pipeline's description, unless a person has written one."""
        found = client.get_run(parent)
        note, ours = found.data.tags.get(_NOTE, ""), found.data.tags.get(_NOTE_HASH)
        if found.info.lifecycle_stage != "active" or (note and overview.digest(note) != ours):
            return
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = client.search_runs([self._experiment], query, max_results=1000, order_by=["start_time ASC"])
        stages = [
            overview.Stage(child.info.run_id, child.info.run_name, child.info.status, child.data.tags)
            for child in children
        ]
        pages = [file.path for file in client.list_artifacts(parent)]
        gates = [file.path for folder in pages if folder == "gates" for file in client.list_artifacts(parent, folder)]
        text = overview.describe(
            self._experiment, parent, found.data.tags, found.data.metrics, stages, [*pages, *gates]
        )
        if text != note:
            self._texts(parent, "tags", {_NOTE: text, _NOTE_HASH: overview.digest(text)})

    def _is_active(self, run_id: str) -> bool:
        with _translated(self._uri):
            return str(self._connect().get_run(run_id).info.lifecycle_stage) == "active"

    def _end_parent(self, client: MlflowClient, parent: str, time_ms: int) -> None:
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = client.search_runs([self._experiment], query, max_results=1000)
        found = {child.info.status for child in children}
        worst = next((status for status in ("RUNNING", "FAILED", "KILLED") if status in found), "FINISHED")
        if worst != "RUNNING" and self._is_active(parent):
            client.set_terminated(parent, worst if found else "KILLED", time_ms)

    def _connect(self) -> MlflowClient:
        artifact_store.connect(self._uri)
        if self._client is not None and self._experiment:
            return self._client
        if why := store_file.problem(self._uri):
            raise DamagedError(store_file.advice(self._uri, why))
        client = self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        found = client.get_experiment_by_name(self._name)
        if found is None:
            place = artifact_location.for_new_experiments(self._uri)
            self._experiment = client.create_experiment(self._name, artifact_location=place)
        else:
            if found.lifecycle_stage == "deleted":
                client.restore_experiment(found.experiment_id)
            self._experiment = found.experiment_id
        self._mark(client)
        return client

    def _mark(self, client: MlflowClient) -> None:
        """Gives the experiment its kind, where nobody chose one, and the store an identity."""
        tags = client.get_experiment(self._experiment).tags
        if tags.get(_KIND_TAG, "no_inferred_type").endswith(("_inferred", "no_inferred_type")):
            client.set_experiment_tag(self._experiment, _KIND_TAG, _KIND)
        if _STORE_TAG not in tags:
            client.set_experiment_tag(self._experiment, _STORE_TAG, uuid.uuid4().hex)
            tags = client.get_experiment(self._experiment).tags  # another project may have been quicker
        self.store = tags[_STORE_TAG]

    def _find(self, client: MlflowClient, tag: str, value: str, kind: str, view: int) -> str | None:
        query = f"tags.`{tag}` = '{value}' and tags.`tohum.kind` = '{kind}'"
        runs = client.search_runs(
            [self._experiment], query, view, max_results=1, order_by=["attributes.start_time ASC"]
        )
        return runs[0].info.run_id if runs else None

    def _parent(self, client: MlflowClient, start: dict[str, Any]) -> str | None:
        """The run that this one is shown below, made where it is not there yet: its pipeline's, or its search's."""
        uid, kind = start["pipeline_uid"], start.get("kind", "stage")
        if kind == "search":
            return None
        above = "search" if kind == "trial" else "pipeline"
        if uid not in self._parents:
            known = self._find(client, "tohum.pipeline_uid", uid, above, ViewType.ACTIVE_ONLY)
            if known is None:
                tags = {"tohum.pipeline_uid": uid, "tohum.kind": above}
                tags |= {key: text for key, text in start["tags"].items() if key.startswith("git.")}
                name = f"pipeline {uid[:8]}"
                if above == "search":  # a run with lines of its own, which are still to come
                    tags["tohum.run_uid"], name = uid, f"search@{start['tags']['tohum.recipe']}"
                made = client.create_run(self._experiment, start["time_ms"], tags, name)
                known = made.info.run_id
            self._parents[uid] = known
            if above == "pipeline" and (settings := start.get("pipeline_params")):
                there = client.get_run(known).data.params
                missing = {key: text for key, text in settings.items() if key not in there}
                self._texts(known, "params", missing)
        if above == "pipeline":
            client.update_run(self._parents[uid], status="RUNNING")
        return self._parents[uid]

    def _texts(self, run_id: str, kind: str, values: dict[str, str]) -> None:
        make = {"tags": RunTag, "params": Param}[kind]
        with _translated(self._uri):
            for some in _pieces([make(key, text[:_TEXT]) for key, text in values.items()]):
                self._batch(run_id, **{kind: some})

    def _batch(self, run_id: str, **items: list[Any]) -> None:
        """One call; where the store refuses something in it, one call an item, so that the rest arrives."""
        client = self._connect()
        try:
            client.log_batch(run_id, synchronous=True, **items)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            for name, some in items.items():
                for item in some:
                    self._one(client, run_id, name, item)

    def _one(self, client: MlflowClient, run_id: str, name: str, item: Any) -> None:
        arguments: dict[str, Any] = {name: [item]}
        try:
            client.log_batch(run_id, synchronous=True, **arguments)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            print(f"sender: MLflow refuses {item.key!r} of run {run_id}: {error.message}", flush=True)

    def _artifact(self, run_id: str, event: dict[str, Any]) -> None:
        """Attaches the copy that was kept, or the file itself where it is still the same."""
        path, place = Path(event["path"]), event.get("place") or None
        copy = ATTACHED / event["sha256"] / path.name
        try:
            found = next(
                (one for one in (copy, path) if one.exists() and files.sha256_of(one) == event["sha256"]), None
            )
        except OSError as error:
            print(f"sender: {error}; left out", flush=True)
            return
        if found is None:
            print(f"sender: {path} changed before it was delivered; left out", flush=True)
            return
        with _translated(self._uri):
            client = self._connect()
            if found.is_dir():
                client.log_artifacts(run_id, str(found), "/".join(filter(None, [place, path.name])))
            else:
                client.log_artifact(run_id, str(found), place)

    def _model(self, cursor: "Cursor", event: dict[str, Any]) -> list[Metric]:
        """The model with these bytes, made here or (an evaluation) known already; its metrics, tied to it."""
        run_id = str(cursor.run_id)
        with _translated(self._uri):
            client = self._connect()
            query = f"params.sha256 = '{event['sha256']}'"
            known = list(client.search_logged_models([self._experiment], query, max_results=1))
            if known:
                model = known[0]
            else:
                params = {"path": event["path"], "sha256": event["sha256"]}
                model = client.create_logged_model(
                    self._experiment, event["name"], run_id, params=params, tags={"tohum.by": "reference"}
                )
            if str(model.status) != "READY":
                client.finalize_logged_model(model.model_id, "READY")
            if model.model_id not in _linked(client.get_run(run_id)):
                if model.source_run_id == run_id:
                    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
                else:
                    client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
        return [
            Metric(_whole(key, cursor), value, event["time_ms"], 0, model_id=model.model_id, run_id=run_id)
            for key, value in event["values"].items()
        ]


def _metrics(event: dict[str, Any], cursor: "Cursor") -> list[Metric]:
    step = event.get("step")
    if step is None:
        return [Metric(_whole(key, cursor), value, event["time_ms"], 0) for key, value in event["values"].items()]
    fresh = {key: value for key, value in event["values"].items() if step > cursor.last_step.get(key, -1)}
    cursor.last_step |= dict.fromkeys(fresh, step)
    return [Metric(key, value, event["time_ms"], step) for key, value in fresh.items()]


def _whole(key: str, cursor: "Cursor") -> str:
    """A figure of the whole run: where its key has a curve, it has a name of its own and is no point of the curve."""
    return f"summary/{key}" if key in cursor.last_step else key


def _linked(run: Any) -> set[str]:
    """Ids of the models that a run made or read."""
    made = run.outputs.model_outputs if run.outputs else []
    read = run.inputs.model_inputs if run.inputs else []
    return {link.model_id for link in [*made, *read]}


def _pieces(items: list[Any]) -> Iterable[list[Any]]:
    return (items[first : first + _PARAMS_A_CALL] for first in range(0, len(items), _PARAMS_A_CALL))


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turns what mlflow, its HTTP client and its database driver raise into AwayError, DamagedError and GoneError."""
    try:
        yield
    except (AwayError, GoneError):
        raise
    except Exception as error:
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise GoneError(str(error)) from error
        why = " ".join(str(getattr(error, "orig", None) or error).split())
        if "out-of-date database schema" in why:
            why = f"another version of MLflow made it; `mlflow db upgrade {uri}` brings a copy of it up to date"
            raise DamagedError(store_file.advice(uri, why)) from error
        if uri.startswith("sqlite") and any(words in why for words in _DAMAGED):
            raise DamagedError(store_file.advice(uri, why[:_SENTENCE])) from error
        raise AwayError(f"MLflow: {type(error).__name__}: {why[:_SENTENCE]}") from error
