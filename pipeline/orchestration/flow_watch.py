"""The deployment `tohum-watch/watch`: looks at the requests of the served models, and reports lost quality as an event.

A look at changed requests alone is a warning in the run's message. With evidence of lost quality the event
`tohum.drift` is sent, which starts `retrain-on-drift`.
"""

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed

from pipeline.errors import UserError
from pipeline.orchestration import drift
from pipeline.orchestration.drift import Seen
from pipeline.orchestration.flow import processes_of_run
from pipeline.orchestration.flow_view import log_lines
from pipeline.orchestration.process import PROGRAM, StageError

ALARM = 3
"""Exit code of `tohum watch` where a model has an alarm."""


@flow(name="tohum-watch", persist_result=False, validate_parameters=True)
def watch(model: str | None = None, window: int | None = None) -> State[Any]:
    """Looks once.

    Args:
        model: a served model; none: the one that has observations.
        window: requests in the window; none: as the watch has it.
    """
    words = [*([model] if model else []), "--once", "--json", *(["--window", str(window)] if window else [])]
    try:
        with processes_of_run() as processes:
            command = [PROGRAM, "watch", *words]
            lines = processes.run(command, timeout_s=None, tell=log_lines(), accepted={0, ALARM})
        looks = drift.read(lines, model or "")
    except (StageError, UserError) as error:
        return Failed(message=str(error))
    rows = [f"| {seen.model} | {seen.verdict} | {', '.join(seen.evidence)} | {seen.episode} |" for seen in looks]
    table = "\n".join(["| model | verdict | evidence | episode |", "|---|---|---|---|", *rows])
    create_markdown_artifact(key="tohum-watch", markdown=table, description="a look at the served models")
    for seen in looks:
        if seen.asks_for_retraining:
            emit(seen)
            get_run_logger().warning(f"{seen.sentence}; event {drift.EVENT} sent")
    return Completed(message="; ".join(seen.sentence for seen in looks))


def emit(seen: Seen) -> None:
    """Sends the event of an alarm; each look at a standing alarm repeats it, should one have been lost."""
    emit_event(
        drift.EVENT,
        resource={"prefect.resource.id": f"tohum.model.{seen.model}", "prefect.resource.name": seen.model},
        payload={"model": seen.model, "episode": seen.episode, "evidence": seen.sentence},
    )
