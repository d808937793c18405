"""The deployment `tohum-retrain/retrain-on-drift`: trains on the old data and the journal's, up to a review.

Answers the event `tohum.drift`. On a checkout of its own the run exports the consented requests and ratings to a file
under inputs/, adds that as a source beside the old ones (replay: the old data stays whole, each at its `weight`), runs
the graph, saves the branch, registers what its gates let through, and starts the review of each new candidate. It
promotes nothing. One episode is retrained for once; further events about it end without a training.
"""

import time
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from pipeline.errors import UserError
from pipeline.orchestration import checkout, drift, run_checkout
from pipeline.orchestration.added_source import add, snapshot
from pipeline.orchestration.flow import conclusion, failed, processes_of_run, registered, run_graph
from pipeline.orchestration.flow_train import finish, tell
from pipeline.orchestration.process import StageError


@flow(name="tohum-retrain", persist_result=False, validate_parameters=True)
def retrain(  # noqa: PLR0913 - each is a parameter of the deployment
    model: str,
    episode: str = "",
    evidence: str = "",
    profile: str | list[str] | None = None,
    set: dict[str, Any] | None = None,
    start: str | None = None,
) -> State[Any]:
    """Retrains on the old data and the journal's, and ends with a candidate in review.

    Args:
        model: the served model that lost quality.
        episode: the watch's name for this stretch of bad quality.
        evidence: the watch's sentence, kept in the commit.
        profile: one or more of infra/profiles; the branch's params.yaml is theirs.
        set: dotted path in params.yaml -> its value on the branch, after the profiles.
        start: the commit, branch or tag to begin with; none: the newest of this branch here or upstream.
    """
    if drift.retrained(model, episode):
        return Completed(message=f"{model}: was retrained for episode {episode} already")
    names = [profile] if isinstance(profile, str) else profile or []
    try:
        with run_checkout.opened(str(flow_run.id), start) as own, processes_of_run() as processes:
            tell(own)
            checkout.write_params(names, set or {})
            run_checkout.require_server(own, registers=True)
            path = snapshot(own, processes, f"ratings-{time.strftime('%Y-%m-%d', time.gmtime())}")
            get_run_logger().info(f"source {add(path)}: {path}, beside the sources that are there")
            results = run_graph(processes, None, False, None)
            if failed(results):
                return conclusion(results)
            saved = run_checkout.save(own, f"Retraining of {model} on {path.name}: {evidence or 'asked for by hand'}")
            get_run_logger().info(saved)
            results.append(registered(processes, approve=True))
            finish(own, processes)
        if not failed(results) and episode:
            drift.note(model, episode)
        return conclusion(results, saved)
    except (UserError, StageError) as error:
        return Failed(message=str(error))
