"""Writes to one MLflow run: params, tags, metrics, small files, and models by reference.

Every call may be repeated. An item that the store will never take is named in the sender's log and left out, so that
the rest arrives. Metrics are a line of the run's file (pipeline.tracking.tracker) as MLflow's entities.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from pipeline import files
from pipeline.tracking.tracker import ATTACHED

if TYPE_CHECKING:
    from pipeline.tracking.outbox import Cursor

_PARAMS_A_CALL = 100
_LONGEST_TEXT = 5000
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


def write_texts(client: MlflowClient, run_id: str, kind: str, values: dict[str, str]) -> None:
    """Writes `kind` "tags" or "params" in calls of a hundred; MLflow takes 5,000 characters of a text."""
    entity = {"tags": RunTag, "params": Param}[kind]
    for batch in _batches([entity(key, text[:_LONGEST_TEXT]) for key, text in values.items()]):
        write_batch(client, run_id, **{kind: batch})


def write_batch(client: MlflowClient, run_id: str, **items: list[Any]) -> None:
    """One call; where the store refuses something in it, one call an item, so that the rest arrives."""
    try:
        client.log_batch(run_id, synchronous=True, **items)
    except MlflowException as error:
        if error.error_code not in _REFUSED:
            raise
        for name, batch in items.items():
            for item in batch:
                _write_item(client, run_id, name, item)


def attach(client: MlflowClient, run_id: str, event: dict[str, Any]) -> None:
    """Attaches the copy that was kept when the file was attached, or the file itself where it is still the same."""
    path, place = Path(event["path"]), event.get("place") or None
    copy = ATTACHED / event["sha256"] / path.name
    try:
        unchanged = [
            candidate
            for candidate in (copy, path)
            if candidate.exists() and files.sha256_of(candidate) == event["sha256"]
        ]
    except OSError as error:
        print(f"sender: {error}; left out", flush=True)
        return
    if not unchanged:
        print(f"sender: {path} changed before it was delivered; left out", flush=True)
    elif unchanged[0].is_dir():
        client.log_artifacts(run_id, str(unchanged[0]), "/".join(filter(None, [place, path.name])))
    else:
        client.log_artifact(run_id, str(unchanged[0]), place)


def link_model(client: MlflowClient, experiment: str, cursor: "Cursor", event: dict[str, Any]) -> list[Metric]:
    """Links the run to the logged model with these bytes, made here or known already (an evaluation); its metrics."""
    run_id = str(cursor.run_id)
    known = list(client.search_logged_models([experiment], f"params.sha256 = '{event['sha256']}'", max_results=1))
    if known:
        model = known[0]
    else:
        params = {"path": event["path"], "sha256": event["sha256"]}
        model = client.create_logged_model(
            experiment, event["name"], run_id, params=params, tags={"tohum.by": "reference"}
        )
    if str(model.status) != "READY":
        client.finalize_logged_model(model.model_id, "READY")
    if model.model_id not in _linked(client.get_run(run_id)):
        if model.source_run_id == run_id:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        else:
            client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])
    return [
        Metric(_summary_key(key, cursor), value, event["time_ms"], 0, model_id=model.model_id, run_id=run_id)
        for key, value in event["values"].items()
    ]


def metrics_of(event: dict[str, Any], cursor: "Cursor") -> list[Metric]:
    """The metrics of one line; a step that was delivered already is left out, and the cursor keeps the last one."""
    step, time_ms = event.get("step"), event["time_ms"]
    if step is None:
        return [Metric(_summary_key(key, cursor), value, time_ms, 0) for key, value in event["values"].items()]
    fresh = {key: value for key, value in event["values"].items() if step > cursor.last_step.get(key, -1)}
    cursor.last_step |= dict.fromkeys(fresh, step)
    return [Metric(key, value, time_ms, step) for key, value in fresh.items()]


def _summary_key(key: str, cursor: "Cursor") -> str:
    """Name of a metric of the whole run: `summary/<key>` where <key> names a curve, of which it is no point."""
    return f"summary/{key}" if key in cursor.last_step else key


def _write_item(client: MlflowClient, run_id: str, name: str, item: Any) -> None:
    arguments: dict[str, Any] = {name: [item]}
    try:
        client.log_batch(run_id, synchronous=True, **arguments)
    except MlflowException as error:
        if error.error_code not in _REFUSED:
            raise
        print(f"sender: MLflow refuses {item.key!r} of run {run_id}: {error.message}", flush=True)


def _linked(run: Any) -> set[str]:
    """Ids of the models that a run made or read."""
    made = run.outputs.model_outputs if run.outputs else []
    read = run.inputs.model_inputs if run.inputs else []
    return {link.model_id for link in [*made, *read]}


def _batches(items: list[Any]) -> Iterable[list[Any]]:
    return (items[first : first + _PARAMS_A_CALL] for first in range(0, len(items), _PARAMS_A_CALL))
