"""DVC's graph as a Prefect flow: `tohum flow`, or the deployment `tohum/local` of prefect.yaml.

One task run per stage, named after it. DVC gives the stages, their dependencies and their state (graph.py,
read once); Prefect schedules them: retries, time-outs, tags, side by side while cores are free. A stage that is neither
stale nor downstream of a stale one ends as `Cached` without a call of DVC; one that DVC finds unchanged or restores
ends as `Cached` too. A data gate that did not pass is `Failed` with its table as an artifact, and its downstream stages
are not run while independent branches go on. A model's gate that did not pass lets the graph go on and ends as
`Refused`. A failed flow's message begins with the cause: the stage, its gate's rule, count and setting. While a stage
trains, its step and losses go to its log and to a progress artifact.

No run waits for a person: with `approve` it starts a review of each new candidate (flow_review.py) and ends.

One run at a time works in a checkout; `profile` and `set` change params.yaml for
the run only (checkout.py). Every `dvc repro --single-item` runs under the guard, and so does `tohum flow`: if any
process is killed, no training goes on and no temporary Prefect server stays behind.
"""

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any

from prefect import Flow, flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_CORS_ALLOWED_ORIGINS,
    temporary_settings,
)
from prefect.states import Completed, Failed
from pydantic import Field

from pipeline.errors import UserError
from pipeline.orchestration import checkout, code_changes, dvc_lock, graph
from pipeline.orchestration.flow_schedule import Schedule, result_of
from pipeline.orchestration.flow_tasks import REGISTER, register_task
from pipeline.orchestration.flow_view import BAD, StageResult, log_lines, reason, summary
from pipeline.orchestration.process import Processes, StageError, StageTimeoutError

_WORKER_RUN = "PREFECT__FLOW_RUN_ID"
"""Set by a worker for the flow run that it starts."""


@flow(name="tohum", persist_result=False, validate_parameters=True)
def tohum(  # noqa: PLR0913 - each is a parameter of the deployment
    targets: list[str] | None = None,
    force: bool = False,
    max_parallel: Annotated[int, Field(ge=1)] | None = None,
    approve: bool = False,
    registration: bool = True,
    profile: str | list[str] | None = None,
    set: dict[str, Any] | None = None,
) -> State[Any]:
    """Runs the graph of the project in the working directory.

    Args:
        targets: stages to bring up to date with all they need; none means the whole graph, and registration.
        force: run every stage even if nothing changed.
        max_parallel: stages side by side at most; none: limited by the cores that each stage requests.
        approve: start a review of each newly registered candidate, which waits for a person on its own.
        registration: register the models whose gate passed, at the end of a whole run.
        profile: one or more of infra/profiles; params.yaml is theirs during the run.
        set: dotted path in params.yaml -> its value during the run, after the profiles.
    """
    names = [profile] if isinstance(profile, str) else profile or []
    try:
        with checkout.held(str(flow_run.name)), checkout.params_of_run(names, set or {}) as sentences:
            for line in sentences:
                get_run_logger().warning(line)
            return _run_held(targets, force, max_parallel, approve, registration)
    except UserError as error:
        return Failed(message=str(error))


def _run_held(
    targets: list[str] | None, force: bool, max_parallel: int | None, approve: bool, register: bool
) -> State[Any]:
    """The flow in a locked working folder, with the params of this run."""
    with processes_of_run() as processes:
        results = run_graph(processes, targets, force, max_parallel)
        if register and not targets and not failed(results):
            results.append(registered(processes, approve))
    return conclusion(results)


@contextmanager
def processes_of_run() -> Iterator[Processes]:
    """The child processes of this flow run, which end with the block and with the worker that started the run."""
    processes = Processes(TOHUM_PIPELINE_UID=str(flow_run.id).replace("-", ""))
    if os.environ.get(_WORKER_RUN):
        _end_with_parent()
    try:
        yield processes
    finally:
        processes.stop()


def run_graph(
    processes: Processes, targets: list[str] | None, force: bool, max_parallel: int | None
) -> list[StageResult]:
    """Runs the graph of the working folder, or what the targets need; one result for each stage."""
    for line in dvc_lock.repair():
        get_run_logger().warning(line)
    whole = _with_code(processes)
    return Schedule(whole.only(targets) if targets else whole, force, max_parallel, processes).run()


def failed(results: list[StageResult]) -> bool:
    """Whether a stage failed or could not run; a model refused by its gate is no failure."""
    return any(result.state in BAD for result in results)


def registered(processes: Processes, approve: bool) -> StageResult:
    """Registers the models whose gate passed; with `approve` a review of each new candidate is started."""
    began = time.monotonic()
    future = register_task.submit(processes, approve)
    return result_of(REGISTER, future, time.monotonic() - began)


def conclusion(results: list[StageResult], more: str = "") -> State[Any]:
    """The flow run's end, with a table of the stages as an artifact; `more` is added to its message."""
    table = summary(results)
    create_markdown_artifact(key="tohum-summary", markdown=table, description="every stage, its state and seconds")
    if why := reason(results):
        get_run_logger().error(why)  # Prefect puts a message of its own in the place of this one after a pause
        return Failed(message=why)
    refused = [result.stage for result in results if result.state == "Refused"]
    names = f"; refused by their gate: {', '.join(refused)}" if refused else ""
    cached = sum(result.state == "Cached" for result in results)
    return Completed(message=f"{len(results)} tasks, {cached} cached{names}{f'; {more}' if more else ''}")


def _with_code(processes: Processes) -> graph.Graph:
    """The graph once stage `code` is up to date: the other stages depend on the files that it writes.

    Raises:
        UserError: a graph that DVC refuses, or stage `code` failed.
    """
    whole = graph.read()
    code = whole.stages.get(code_changes.STAGE)
    if code is None or not code.changes:
        return whole
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", code.name]
    try:
        processes.run(command, timeout_s=code.meta.timeout_s, tell=log_lines())
    except (StageError, StageTimeoutError) as error:
        raise UserError(f"{code.name}: {error}") from None
    return graph.read()


def _end_with_parent() -> None:
    """Ends this flow run when the worker that started it has ended: after a killed worker no training goes on."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def closed() -> AbstractContextManager[object]:
    """Settings under which the temporary server that Prefect starts answers only this flow, and no web page."""
    if PREFECT_API_URL.value():
        return nullcontext()
    secret = f"tohum:{secrets.token_urlsafe(32)}"
    return temporary_settings(
        {
            PREFECT_SERVER_API_AUTH_STRING: secret,
            PREFECT_API_AUTH_STRING: secret,
            PREFECT_SERVER_CORS_ALLOWED_ORIGINS: "http://127.0.0.1",
        }
    )


def run(chosen: Flow[..., State[Any]], **parameters: Any) -> int:
    """Runs a flow in this process; returns the exit code: 0 done, 1 with the reason on stderr."""
    with closed():
        state: State[Any] = chosen(**parameters, return_state=True)
    if state.is_completed():
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 1
