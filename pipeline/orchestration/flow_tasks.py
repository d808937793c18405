"""Prefect tasks: one stage of the graph through DVC, and the registration after the last one."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from pipeline.orchestration import flow_review, graph, verdicts
from pipeline.orchestration.flow_view import followed, log_lines, publish
from pipeline.orchestration.process import PROGRAM, Processes, StageError, StageTimeoutError

REGISTER = "register"
# DVC's output when it had nothing to run.
_UNCHANGED = {
    "didn't change, skipping": "unchanged",
    "is cached - skipping run": "restored from the run cache",
}


@task(cache_policy=NO_CACHE, persist_result=False)
def stage_task(stage: graph.Stage, fresh: bool, force: bool, processes: Processes) -> Any:
    """One stage as a task: a call of DVC unless it is fresh."""
    if fresh:
        return Completed(name="Cached", message="neither stale nor downstream of a stale stage")
    command = [
        "dvc",
        "--wait-for-lock",
        "repro",
        "--single-item",
        *(["--force"] if force else []),
        stage.name,
    ]
    try:
        with followed(stage.name, processes.environment["TOHUM_PIPELINE_UID"]):
            lines = processes.run(command, timeout_s=stage.meta.timeout_s, tell=log_lines())
    except StageTimeoutError as error:
        raise StageError(f"{stage.name}: {error}; raise timeout_s in the stage's meta in dvc.yaml") from None
    except StageError as error:
        verdict = verdicts.of(stage)
        if verdict is not None:
            publish(verdict)
        raise StageError(f"{stage.name}: {verdict.sentence if verdict and not verdict.passed else error}") from None
    refused = _published(stage)
    for line in lines:
        for words, message in _UNCHANGED.items():
            if words in line:
                return Completed(name="Cached", message=message)
    return Completed(message="ran") if refused is None else Completed(name="Refused", message=refused)


def _published(stage: graph.Stage) -> str | None:
    """Publishes the verdict of a gate, so that it replaces an earlier one; its sentence if the gate did not pass."""
    verdict = verdicts.of(stage)
    if verdict is None:
        return None
    publish(verdict)
    return None if verdict.passed else verdict.sentence


@task(name=REGISTER, task_run_name=REGISTER, cache_policy=NO_CACHE, persist_result=False)
def register_task(processes: Processes, approve: bool) -> Any:
    """The last task: registers the models whose gate passed; with `approve` a review of each new one is started."""
    lines = processes.run([PROGRAM, REGISTER], timeout_s=None, tell=log_lines())
    return Completed(message=flow_review.start(lines) if approve else "ran")
