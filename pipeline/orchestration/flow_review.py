"""A review as a Prefect flow of its own: the deployment `tohum-review/review`, one run for each candidate.

The run shows the review as an artifact and suspends: its process ends, so a person may take weeks, it holds no slot of
the worker or the deployment, and a restart of the server changes nothing. When the form is answered, Prefect starts it again, and it runs
`tohum promote` or `tohum reject` with the answer. The version and the hash that were shown are parameters of the run,
so the answer is about those bytes and no others. Prefect's page knows no person: the entry of the ledger says so, and
where `review.identity` needs a proof, the answer is refused and names the command.
"""

import re
from typing import Any, Literal

from prefect import flow
from prefect.artifacts import create_markdown_artifact
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
def review(model: str, version: str | None = None, sha256: str | None = None) -> State[Any]:
    """Shows a candidate, waits suspended for a person's decision, and records it.

    Args:
        model: a model of params.yaml.
        version: the candidate's number; without it a run for the present candidate is started.
        sha256: the hash over its files, as the review shows it.
    """
    processes = Processes()
    try:
        if version is None or sha256 is None:
            return _restarted(model, processes)
        answer = suspend_flow_run(wait_for_input=_form(model, version, sha256, processes), key="decision")
        return _decided(model, version, sha256, answer, processes)
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
        begun = _begin({"model": name}, f"review-{name}-{version}")
        said.append(f"{name} version {version}: {begun or f'review it with tohum review {name}'}")
    return "; ".join(said) or "no new candidate"


def begin(model: str) -> str:
    """Starts a review of the present candidate of a model; returns a sentence, empty where nothing could run it."""
    return _begin({"model": model}, None)


def _begin(parameters: dict[str, str], once: str | None) -> str:
    try:
        run = run_deployment(DEPLOYMENT, parameters=parameters, timeout=0, as_subflow=False, idempotency_key=once)
    except ObjectNotFound:
        return ""
    return f"review {run.name!r} waits in Prefect"


def _restarted(model: str, processes: Processes) -> State[Any]:
    """A run for the present candidate, with its version and hash as parameters."""
    _, (name, version, sha256) = _shown(model, processes)
    begun = _begin({"model": name, "version": version, "sha256": sha256}, f"review-{name}-{version}-{sha256}")
    if not begun:
        return Failed(message=f"{DEPLOYMENT}: no such deployment; start a worker (tohum worker), or decide with "
                              f"tohum review {model}")  # fmt: skip
    return Completed(message=f"version {version}: {begun}")


def _form(model: str, version: str, sha256: str, processes: Processes) -> type[Decision]:
    """The form, with the review above it; after the answer only its fields matter."""
    if flow_run.run_count > 1:
        return Decision
    text, (_, shown, found) = _shown(model, processes)
    if (shown, found) != (version, sha256):
        raise StageError(f"{model}: the candidate is version {shown} with {found} by now, not {version} with {sha256}")
    key = f"tohum-review-{re.sub('[^a-z0-9]+', '-', model.lower()).strip('-')}"
    create_markdown_artifact(key=key, markdown=text, description=f"version {version} of {model}, as it waits for a decision")
    about = (f"{model} version {version}, exactly the files with {sha256}. The whole review is the artifact {key}; as "
             f"a page: `tohum review {model} --page`.")  # fmt: skip
    return Decision.with_initial_data(description=about)


def _shown(model: str, processes: Processes) -> tuple[str, tuple[str, str, str]]:
    """The review's text, and the model, version and hash that it would approve."""
    lines = processes.run([PROGRAM, "review", model], timeout_s=None, tell=lambda _: None)
    found = next((match for line in reversed(lines) if (match := _APPROVAL.search(line))), None)
    if found is None:
        raise StageError(f"tohum review {model}: its output names no version to approve")
    return "\n".join(lines), (found[1], found[2], found[3])


def _decided(model: str, version: str, sha256: str, answer: Decision, processes: Processes) -> State[Any]:
    """Runs the command of the answer."""
    words = ["--reason", answer.reason, "--via", f"Prefect's page, flow run {flow_run.id}"]
    if answer.decision == "approve":
        words = ["promote", model, version, "--sha256", sha256, *words]
        words += ["--despite", answer.despite] if answer.despite else []
    else:
        words = ["reject", model, version, *words]
    processes.run([PROGRAM, *words], timeout_s=None, tell=log_lines())
    return Completed(message=f"{model} version {version}: {answer.decision}, {answer.reason}")
