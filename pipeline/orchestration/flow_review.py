"""A review as a Prefect flow of its own: the deployment `tohum-review/review`, one run for each candidate.

The run shows the review as an artifact and suspends: its process ends, so a person may take weeks, it holds no slot of
the worker or the deployment, and a restart of the server changes nothing. When the form is answered, Prefect starts it
again, and it runs `tohum promote` or `tohum reject` with the answer, for the version and the hash in the artifact: the
answer is about the bytes that were shown and no others. Prefect's page knows no person: the entry of the ledger says
so, and where `review.identity` needs a proof, the answer is refused and names the command.
"""

import re
from typing import Any, Literal
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from pipeline.orchestration.flow_view import log_lines
from pipeline.orchestration.process import PROGRAM, Processes, StageError

DEPLOYMENT = "tohum-review/review"
_APPROVAL = re.compile(r"tohum promote (\S+) (\d+) --sha256 ([0-9a-f]{64})")
_REGISTERED = re.compile(r"(\S+) version (\d+): registered, candidate")


class Decision(RunInput):
    """A person's decision; Prefect makes a form of it."""

    decision: Literal["approve", "reject"]
    reason: str
    despite: str = ""


@flow(name="tohum-review", flow_run_name="review of {model}", persist_result=False, validate_parameters=True)
def review(model: str) -> State[Any]:
    """Shows the candidate of a model, waits suspended for a person's decision, and records it."""
    processes = Processes()
    try:
        text = _kept() or _show(model, processes)
        shown = _approval(text)
        about = f"{shown[1]} version {shown[2]}, exactly the files with {shown[3]}; see the artifact {_key(model)}."
        answer = suspend_flow_run(wait_for_input=Decision.with_initial_data(description=about), key="decision")
        return _decided(shown, answer, processes)
    except StageError as error:
        return Failed(message=str(error))
    finally:
        processes.stop()


def start(lines: list[str]) -> str:
    """Starts a review for each newly registered candidate, without waiting for any; returns a sentence.

    Args:
        lines: the output of `tohum register`.
    """
    said = []
    for name, version in (match.groups() for line in lines if (match := _REGISTERED.match(line))):
        begun = begin(name, f"review-{name}-{version}")
        said.append(f"{name} version {version}: {begun or f'review it with tohum review {name}'}")
    return "; ".join(said) or "no new candidate"


def begin(model: str, once: str | None = None) -> str:
    """Starts a review of the candidate of a model; returns a sentence, empty where there is no such deployment.

    Args:
        model: a model of params.yaml, or its registered name.
        once: with equal texts one run is started.
    """
    parameters = {"model": model}
    try:
        run: Any = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False, idempotency_key=once)
    except ObjectNotFound:
        return ""
    return f"flow run {run.name!r} waits for a person in Prefect"


def unreachable() -> str:
    """The reason why Prefect's server does not answer; empty where it does."""
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    return "" if error is None else f"{type(error).__name__}: {error}"


def _kept() -> str:
    """The review that this run has shown before it was suspended; empty in its first process."""
    this = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run.id)]))
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(flow_run_filter=this)
    return str(artifacts[0].data) if artifacts else ""


def _show(model: str, processes: Processes) -> str:
    """Makes an artifact of the review; returns its text."""
    lines = processes.run([PROGRAM, "review", model], timeout_s=None, tell=lambda _: None)
    text = "\n".join(lines)
    shown = _approval(text)
    create_markdown_artifact(key=_key(model), markdown=text, description=f"version {shown[2]} as it was shown")
    return text


def _key(model: str) -> str:
    return f"tohum-review-{re.sub('[^a-z0-9]+', '-', model.lower()).strip('-')}"


def _approval(text: str) -> re.Match[str]:
    """Model, version and hash of the command that approves, in the text of a review."""
    found = list(_APPROVAL.finditer(text))
    if not found:
        raise StageError("the review names no version to approve; look at tohum review")
    return found[-1]


def _decided(shown: re.Match[str], answer: Decision, processes: Processes) -> State[Any]:
    """Runs the command of the answer."""
    model, version, sha256 = shown.groups()
    words = [f"--reason={answer.reason}", "--via", f"an answer in Prefect's page, flow run {flow_run.id}"]
    if answer.decision == "approve":
        words = ["promote", model, version, "--sha256", sha256, *words]
        words += [f"--despite={answer.despite}"] if answer.despite else []
    else:
        words = ["reject", model, version, *words]
    processes.run([PROGRAM, *words], timeout_s=None, tell=log_lines())
    return Completed(message=f"{model} version {version}: {answer.decision}, {answer.reason}")
