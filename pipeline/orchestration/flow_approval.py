"""The last task of a flow run: registration, after a person's approval in Prefect's page where that is required."""

import time
from dataclasses import replace

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run

from pipeline import files
from pipeline.orchestration import approval, verdicts
from pipeline.orchestration.flow_schedule import result_of
from pipeline.orchestration.flow_tasks import REGISTER, register_task
from pipeline.orchestration.flow_view import BAD, SENTENCE, StageResult
from pipeline.orchestration.process import Processes
from pipeline.paths import FLOW

APPROVAL_S = 24 * 3600
"""Seconds that a run waits for an answer."""
ANSWERS = FLOW / "approvals"


class Approval(RunInput):
    """A person's answer before models are registered; Prefect makes a form of it."""

    register_models: bool
    reason: str


def register(approve: bool, processes: Processes) -> StageResult:
    """Registers the models whose gate passed; with `approve` only those a person approved, with the bytes shown."""
    approved, answer = None, None
    if approve:
        candidates = approval.candidates()
        approved = [candidate for candidate in candidates if candidate.passed]
        if not approved:
            return StageResult(REGISTER, "Declined", 0.0, "no model of register.models in params.yaml passed its gate")
        answer = _ask(approval.table(candidates))
        if answer is None:
            why = f"no answer within {APPROVAL_S / 3600:g} h, nothing was registered; run the flow again"
            return StageResult(REGISTER, "Failed", 0.0, why)
        if not answer.register_models:
            return StageResult(REGISTER, "Declined", 0.0, answer.reason)
        if why := approval.changed(approved):
            return StageResult(REGISTER, "Failed", 0.0, why)
    began = time.monotonic()
    future = register_task.submit(processes, approved)
    result = result_of(REGISTER, future, time.monotonic() - began)
    if answer is not None and result.state not in BAD:
        return replace(result, message=f"approved: {answer.reason}")
    return result


def _ask(table: str) -> Approval | None:
    """Shows the models and waits for an answer, which is kept with the table shown; None if none came in time."""
    key, about = "tohum-approval", "models, scores and hashes that wait for an approval"
    create_markdown_artifact(key=key, markdown=table, description=about)
    text = f"These models wait to be registered, with these bytes and no others.\n\n{table}"
    try:
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=text), timeout=APPROVAL_S, key="approval"
        )
    except FlowPauseTimeout:
        return None
    decision = "registration approved" if answer.register_models else "registration declined"
    record = f"**{decision}**: {verdicts.cell(answer.reason, SENTENCE)}\n\n{table}"
    create_markdown_artifact(key=key, markdown=record, description="the answer, and the models that it was about")
    files.write_text(ANSWERS / f"{flow_run.id}.md", record)
    return Approval(register_models=answer.register_models, reason=answer.reason)
