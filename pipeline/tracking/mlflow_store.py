"""One experiment of one MLflow store, as the sender writes to it: finds or makes runs, closes them, describes them.

Every call may be repeated: existing items are found by their tag and not made again. Errors are translated
(pipeline.tracking.delivery_errors). Importing this module imports mlflow; only the sender does.
"""

import os
import uuid
from typing import TYPE_CHECKING, Any

# The sender itself waits and repeats, with the lines safe on disk: mlflow should give up quickly.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

from mlflow import MlflowClient
from mlflow.entities import Metric, ViewType

from pipeline.tracking import artifact_location, artifact_store, mlflow_run, overview, store_file
from pipeline.tracking.delivery_errors import DamagedError, translated

if TYPE_CHECKING:
    from pipeline.tracking.outbox import Cursor

METRICS_A_CALL = 1000
_NOTE, _NOTE_HASH = "mlflow.note.content", "tohum.note_sha256"
# MLflow 3.17 shows its pages for model training, not for agents, where the experiment has this tag with the value
# custom_model_development, and those for traces with genai_development.
_KIND_TAG = "mlflow.experimentKind"
_STORE_TAG = "tohum.store"


class Delivery:
    """A store and an experiment in it."""

    def __init__(self, uri: str, experiment: str, kind: str = "custom_model_development") -> None:
        self._uri = uri
        self._name = experiment
        self._kind = kind
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._parents: dict[str, str] = {}
        self.store = ""
        """Identity of the store, known once connected: a cursor counts only for the store that it was moved in."""

    def open(self, start: dict[str, Any], cursor: "Cursor") -> bool:
        """Finds or makes the run of a `start` line below its pipeline's or search's; False if a person deleted it."""
        with translated(self._uri):
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
            mlflow_run.write_texts(client, cursor.run_id, "tags", start["tags"] | tags)
            mlflow_run.write_texts(client, cursor.run_id, "params", start["params"])
            if before and before != parent:  # continued under another pipeline; the first one ends without it
                self._end_parent(client, before, start["time_ms"])
        return True

    def send(self, cursor: "Cursor", events: list[dict[str, Any]]) -> int:
        """Delivers the lines of one run's file in order; returns the number of metrics."""
        metrics: list[Metric] = []
        last: dict[str, Any] = {}
        active = cursor.run_id is not None and self._is_active(cursor.run_id)
        for event in events:
            if event["event"] == "start":
                active = self.open(event, cursor)
            if active:  # otherwise a person deleted the run, and its lines are dropped
                metrics += self._deliver(cursor, event)
                last = event if event["event"] in ("start", "end") else last
        with translated(self._uri):
            for first in range(0, len(metrics), METRICS_A_CALL):
                batch = metrics[first : first + METRICS_A_CALL]
                mlflow_run.write_batch(self._connect(), str(cursor.run_id), metrics=batch)
        if last:
            cursor.ended = False
        if last.get("event") == "end":
            self.end(cursor, last["status"], last["time_ms"])
        return len(metrics)

    def _deliver(self, cursor: "Cursor", event: dict[str, Any]) -> list[Metric]:
        """Writes one line to the run, except its metrics, which are returned: they go in larger batches."""
        kind, run_id = event["event"], str(cursor.run_id)
        if kind in ("metrics", "end"):
            return mlflow_run.metrics_of(event, cursor)
        with translated(self._uri):
            client = self._connect()
            if kind in ("params", "tags"):
                mlflow_run.write_texts(client, run_id, kind, event["values"])
            elif kind == "artifact":
                mlflow_run.attach(client, run_id, event)
            elif kind in ("page", "headline"):
                self._write_to_parent(client, run_id, event)
            elif kind == "model":
                return mlflow_run.link_model(client, self._experiment, cursor, event)
        return []

    def end(self, cursor: "Cursor", status: str, time_ms: int) -> None:
        """Closes a run, and its pipeline's run with the worst status of the stages so far."""
        cursor.ended = True
        if cursor.run_id is None or not self._is_active(cursor.run_id):
            return
        with translated(self._uri):
            client = self._connect()
            client.set_terminated(cursor.run_id, status, time_ms)
            tags = client.get_run(cursor.run_id).data.tags
            if tags.get("tohum.kind") == "stage":  # the run of a search has an end of its own
                self._end_parent(client, tags["mlflow.parentRunId"], time_ms)
                self._describe(client, tags["mlflow.parentRunId"])

    def _write_to_parent(self, client: MlflowClient, run_id: str, event: dict[str, Any]) -> None:
        """A page or headline metrics of the whole pipeline, on the parent run; unchanged metrics are left out."""
        parent = client.get_run(run_id).data.tags.get("mlflow.parentRunId")
        if parent is None or not self._is_active(parent):
            return
        if event["event"] == "page":
            mlflow_run.attach(client, parent, event)
            return
        known = client.get_run(parent).data.metrics
        fresh = {key: value for key, value in event["values"].items() if known.get(key) != value}
        metrics = [Metric(key, value, event["time_ms"], 0) for key, value in fresh.items()]
        mlflow_run.write_batch(client, parent, metrics=metrics)

    def _describe(self, client: MlflowClient, parent: str) -> None:
        """Writes the pipeline's description, unless a person has written one."""
        run = client.get_run(parent)
        note, our_hash = run.data.tags.get(_NOTE, ""), run.data.tags.get(_NOTE_HASH)
        if run.info.lifecycle_stage != "active" or (note and overview.digest(note) != our_hash):
            return
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = client.search_runs([self._experiment], query, max_results=1000, order_by=["start_time ASC"])
        stages = [
            overview.Stage(child.info.run_id, child.info.run_name, child.info.status, child.data.tags)
            for child in children
        ]
        pages = [file.path for file in client.list_artifacts(parent)]
        for folder in {"gates", "models"} & set(pages):
            pages += [file.path for file in client.list_artifacts(parent, folder)]
        pipeline = overview.Pipeline(self._experiment, parent, run.data.tags, run.data.metrics, stages, pages)
        text = overview.describe(pipeline)
        if text != note:
            mlflow_run.write_texts(client, parent, "tags", {_NOTE: text, _NOTE_HASH: overview.digest(text)})

    def _is_active(self, run_id: str) -> bool:
        with translated(self._uri):
            return str(self._connect().get_run(run_id).info.lifecycle_stage) == "active"

    def _end_parent(self, client: MlflowClient, parent: str, time_ms: int) -> None:
        query = f"tags.`mlflow.parentRunId` = '{parent}'"
        children = client.search_runs([self._experiment], query, max_results=1000)
        statuses = {child.info.status for child in children}
        worst = next((status for status in ("RUNNING", "FAILED", "KILLED") if status in statuses), "FINISHED")
        if worst != "RUNNING" and self._is_active(parent):
            client.set_terminated(parent, worst if statuses else "KILLED", time_ms)

    def experiment_id(self) -> str:
        """The experiment's id; connects and makes it where there is none. `store` is then the store's present identity.

        Raises:
            AwayError: the store cannot be reached.
        """
        with translated(self._uri):
            client = self._connect()
            self.store = client.get_experiment(self._experiment).tags.get(_STORE_TAG, "")
        return self._experiment

    def _connect(self) -> MlflowClient:
        artifact_store.connect(self._uri)
        if self._client is not None and self._experiment:
            return self._client
        if why := store_file.problem(self._uri):
            raise DamagedError(store_file.advice(self._uri, why))
        client = self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        experiment = client.get_experiment_by_name(self._name)
        if experiment is None:
            place = artifact_location.for_new_experiments(self._uri)
            self._experiment = client.create_experiment(self._name, artifact_location=place)
        else:
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(experiment.experiment_id)
            self._experiment = experiment.experiment_id
        self._mark(client)
        return client

    def _mark(self, client: MlflowClient) -> None:
        """Gives the experiment its kind, unless a person chose one, and the store an identity."""
        tags = client.get_experiment(self._experiment).tags
        if tags.get(_KIND_TAG, "no_inferred_type").endswith(("_inferred", "no_inferred_type")):
            client.set_experiment_tag(self._experiment, _KIND_TAG, self._kind)
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
        if kind in ("search", "watch"):
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
                mlflow_run.write_texts(client, known, "params", missing)
        if above == "pipeline":
            client.update_run(self._parents[uid], status="RUNNING")
        return self._parents[uid]
