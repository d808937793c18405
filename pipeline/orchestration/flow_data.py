"""The deployment `tohum-data/refresh-data`: every source downloaded anew, then the data gates, on a branch of its own.

Sources without a pinned hash may have changed. A gate that does not pass fails the run with its table; no branch is
made then, and nothing is trained on the new data.
"""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from pipeline.errors import UserError
from pipeline.orchestration import checkout, run_checkout
from pipeline.orchestration.flow import conclusion, failed, processes_of_run, run_graph
from pipeline.orchestration.flow_train import finish, tell
from pipeline.orchestration.flow_view import log_lines
from pipeline.orchestration.process import StageError

GATES = ["validate@raw", "validate@tokens", "validate@samples"]
_DOWNLOAD = "download"


@flow(name="tohum-data", persist_result=False, validate_parameters=True)
def refresh_data(
    targets: list[str] | None = None,
    profile: str | list[str] | None = None,
    set: dict[str, Any] | None = None,
    start: str | None = None,
) -> State[Any]:
    """Downloads anew, runs the data gates, and saves the data as a branch.

    Args:
        targets: stages to bring up to date after the download; none: the three data gates.
        profile: one or more of infra/profiles; the branch's params.yaml is theirs.
        set: dotted path in params.yaml -> its value on the branch, after the profiles.
        start: the commit, branch or tag to begin with; none: the newest of this branch here or upstream.
    """
    names = [profile] if isinstance(profile, str) else profile or []
    try:
        with run_checkout.opened(str(flow_run.id), start) as own, processes_of_run() as processes:
            tell(own)
            checkout.write_params(names, set or {})
            run_checkout.require_server(own, registers=False)
            results = run_graph(processes, [_DOWNLOAD], False, None)
            if not failed(results):
                processes.run(["dvc", "repro", "--single-item", "--force", _DOWNLOAD], timeout_s=None, tell=log_lines())
                results = run_graph(processes, targets or GATES, False, None)
            if failed(results):
                return conclusion(results)
            saved = run_checkout.save(own, f"Data of {flow_run.name}")
            get_run_logger().info(saved)
            finish(own, processes)
        return conclusion(results, saved)
    except (UserError, StageError) as error:
        return Failed(message=str(error))
