"""One tracked run around the work of a stage, and its record of costs in reports/runs.

with tracked_stage("pretrain", params) as run:
    with run.work():
        for step in fit(...):
            run.log({"loss_nats": step.loss}, step=step.number)
    run.record["tokens_per_second"] = speed
"""

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline import closure, files
from pipeline.config.params import Params
from pipeline.paths import RUNS
from pipeline.tracking import lineage
from pipeline.tracking.cost import Meter, process_started
from pipeline.tracking.start_sender import start_sender
from pipeline.tracking.tracker import FileTracker, NullTracker, flat, warn

# Section of params.yaml with a stage's own settings, where its name differs from the stage's.
_SECTIONS = {"evaluate": "evaluations", "validate": "gates", "validate-model": "evaluations"}


@contextmanager
def tracked_stage(name: str, params: Params, *, tags: Mapping[str, str] | None = None) -> Iterator[NullTracker]:
    """The tracker of one run of a stage; `name` is DVC's (`pretrain`, `finetune@spam-lora`).

    Writes reports/runs/<name>.json at the end, however the block ends: FINISHED, FAILED, or KILLED when interrupted.
    With runtime.tracking.enabled the run goes to MLflow through the sender, which is started if none runs.

    Raises:
        UserError: the stage's code is not the code that DVC compared, before the block or after it.
    """
    closure.require_current(name, params)
    compute, settings = params.compute, params.runtime.tracking
    meter = Meter(compute.device)
    run = NullTracker()
    pipeline = lineage.pipeline_uid() or run.uid
    if settings.enabled:
        everything = {"pipeline_params": flat(params.model_dump(by_alias=True, exclude={"runtime"}))}
        run = FileTracker(_opening(name, pipeline, params, tags or {}) | everything)
        start_sender()
    began, status = time.time(), "FAILED"
    try:
        yield run
        closure.require_current(name, params)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit) as error:
        status = _exit_status(error)
        raise
    finally:
        record = _plain(run.record) | {
            "stage": name,
            "run_uid": run.uid,
            "pipeline_uid": pipeline,
            "status": status,
            "started": _utc(began),
            "ended": _utc(time.time()),
            "seconds_work": round(run.seconds_work, 3),
            "device": compute.device,
            "threads": compute.threads,
            **meter.read(),
        }
        _finish(run, name, status, record)


@contextmanager
def tracked_search(
    kind: Literal["search", "trial", "watch"], name: str, params: Params, search_uid: str, tags: Mapping[str, str]
) -> Iterator[NullTracker]:
    """The tracker of a hyperparameter search, one trial or a watch: in no pipeline, without a record in reports/runs.

    Args:
        kind: `search` or `watch`, whose run id is `search_uid`, however often it is continued; or `trial`, a run below
            a search.
        name: of the run in MLflow.
        params: the project's settings.
        search_uid: id of the search or watch.
        tags: further tags of the run.
    """
    uid = None if kind == "trial" else search_uid
    run = NullTracker(uid)
    if params.runtime.tracking.enabled:
        run = FileTracker(_opening(name, search_uid, params, tags) | {"kind": kind}, uid)
        start_sender()
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit) as error:
        status = _exit_status(error)
        raise
    except Exception as error:
        run.tag(**{"tohum.error": str(error)})
        raise
    finally:
        run.close(status, _plain(run.record))


def _opening(name: str, pipeline: str, params: Params, tags: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a run's first line: where it is delivered, its process, lineage and settings."""
    settings = params.runtime.tracking
    _, _, recipe = name.partition("@")
    described = {"tohum.stage": name, "tohum.device": params.compute.device, **lineage.git_state()}
    if recipe:
        described["tohum.recipe"] = recipe
    described |= {f"dvc.in.{path}": digest for path, digest in lineage.input_hashes(name, params).items()}
    described |= {f"gate.{gate}": words for gate, words in lineage.gate_verdicts().items()}
    return {
        "time_ms": time.time_ns() // 1_000_000,
        "stage": name,
        "pipeline_uid": pipeline,
        "pid": os.getpid(),
        "process_started": process_started(),
        "uri": settings.uri,
        "experiment": settings.experiment,
        "tags": described | dict(tags),
        "params": flat(_own_params(name, params)),
    }


def _own_params(name: str, params: Params) -> dict[str, Any]:
    """The sections that this stage reads: compute, and its own by name."""
    verb, _, key = name.partition("@")
    section = getattr(params, _SECTIONS.get(verb, verb), None)
    if key and isinstance(section, dict):
        section = section.get(key)
    sections = {"compute": params.compute.model_dump(by_alias=True)}
    if section is not None:
        sections[verb] = section.model_dump(by_alias=True) if hasattr(section, "model_dump") else dict(section)
    return sections


def _finish(run: NullTracker, name: str, status: str, record: dict[str, Any]) -> None:
    try:
        files.write_json(RUNS / f"{name}.json", record)
    except (OSError, ValueError, TypeError) as error:
        warn(error)
    run.close(status, record)
    if status == "FINISHED":
        run.forget_uid()
    if isinstance(run, FileTracker):
        start_sender()  # the first one ends when a long stage writes nothing for a while


def _exit_status(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    code = error.code if isinstance(error, SystemExit) else 1
    if code in (None, 0):
        return "FINISHED"
    return "KILLED" if isinstance(code, int) and code >= 128 else "FAILED"


def _plain(value: Any) -> Any:
    """JSON's own types; a number of numpy or torch becomes a float, a non-finite one null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
