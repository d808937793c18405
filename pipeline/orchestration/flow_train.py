"""The deployment `tohum-train/train`: the graph on a checkout of the run's own, saved as the branch `run/<run>`.

Nothing in the working folder changes. A run ends in this order: stages, `dvc push`, commit, push of the branch, then
the registration, whose tag `git.commit` so names a commit from which anybody can verify the version. A run with a
failed stage commits nothing; its finished stages are in the shared cache, and its folder stays for two weeks.
"""

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from pipeline.errors import UserError
from pipeline.orchestration import checkout, run_checkout
from pipeline.orchestration.flow import conclusion, failed, processes_of_run, registered, run_graph
from pipeline.orchestration.flow_view import log_lines
from pipeline.orchestration.process import PROGRAM, Processes, StageError
from pipeline.orchestration.run_checkout import RunCheckout

DELIVERY_S = 600.0
"""Seconds that the end of a run waits for MLflow."""


@flow(name="tohum-train", persist_result=False, validate_parameters=True)
def train(  # noqa: PLR0913 - each is a parameter of the deployment
    targets: list[str] | None = None,
    force: bool = False,
    max_parallel: Annotated[int, Field(ge=1)] | None = None,
    approve: bool = True,
    registration: bool = True,
    profile: str | list[str] | None = None,
    set: dict[str, Any] | None = None,
    start: str | None = None,
) -> State[Any]:
    """Runs the graph on a checkout of its own and saves it as a branch.

    Args:
        targets: stages to bring up to date with all they need; none means the whole graph, and registration.
        force: run every stage even if nothing changed.
        max_parallel: stages side by side at most; none: limited by the cores that each stage requests.
        approve: start a review of each newly registered candidate, which waits for a person on its own.
        registration: register the models whose gate passed, at the end of a whole run.
        profile: one or more of infra/profiles; the branch's params.yaml is theirs.
        set: dotted path in params.yaml -> its value on the branch, after the profiles.
        start: the commit, branch or tag to begin with; none: the newest of this branch here or upstream.
    """
    names = [profile] if isinstance(profile, str) else profile or []
    changes = ", ".join([*names, *(f"{path}={value}" for path, value in (set or {}).items())])
    try:
        with run_checkout.opened(str(flow_run.id), start) as own, processes_of_run() as processes:
            tell(own)
            checkout.write_params(names, set or {})
            run_checkout.require_server(own, registers=registration and not targets)
            results = run_graph(processes, targets, force, max_parallel)
            if failed(results):
                return conclusion(results)
            message = f"Run {flow_run.name}: {changes or 'the graph as it is'}"
            saved = run_checkout.save(own, message)
            get_run_logger().info(saved)
            if registration and not targets:
                results.append(registered(processes, approve))
            finish(own, processes)
        return conclusion(results, saved)
    except UserError as error:
        return Failed(message=str(error))


def finish(own: RunCheckout, processes: Processes) -> None:
    """Removes the run's folder once its records are with MLflow; else it stays, because the records name its files."""
    try:
        processes.run([PROGRAM, "deliver", "--timeout", f"{DELIVERY_S:g}"], timeout_s=None, tell=log_lines())
    except StageError as error:
        get_run_logger().warning(f"{own.folder} stays: {error}; deliver with tohum --project {own.folder} deliver")
        return
    run_checkout.close(own)


def tell(own: RunCheckout) -> None:
    """Logs where the run works, and what it does not see."""
    get_run_logger().info(f"working in {own.folder}, branch {own.branch}, from {own.start[:12]}")
    for note in own.notes:
        get_run_logger().warning(note)
