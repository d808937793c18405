"""DVC's graph as a Prefect flow: `make flow`, or the deployment `tohum/local` of prefect.yaml.

One task run per stage, named after it. DVC says what the stages are, what each waits for and what is stale
(graph.py, asked once); Prefect says when they run: retries, time-outs, tags, side by side while cores
are free. A stage that is neither stale nor downstream of a stale one ends as `Cached` without a call of DVC;
one that DVC finds unchanged or restores ends as `Cached` too. A gate that says no is `Failed` with its table
as an artifact, and what depends on it is not run while independent branches go on. A model's gate that says
no lets the graph go on and ends as `Refused`. A flow that fails says why first: the stage, its gate's rule, count and
setting. While a stage trains, its step and losses go to its log and to a progress artifact.

One run at a time works in a checkout, also while it waits for an approval; `profile` and `set` change params.yaml for
the run only (pipeline.orchestration.checkout).

Every `dvc repro --single-item` runs under guard.py, and so does the flow: whichever process is killed,
nothing goes on training and no temporary Prefect server stays behind.
"""

import argparse
import os
import queue
import re
import secrets
import signal
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Annotated, Any

import yaml
from pydantic import Field

from pipeline.orchestration.process import GUARD

# Guarded itself: a killed flow would leave the temporary Prefect server that it started. Before the imports of
# Prefect, which cost seconds.
# ruff: noqa: E402
_GUARDED = "TOHUM_FLOW_GUARDED"
if __name__ == "__main__" and _GUARDED not in os.environ:
    os.environ[_GUARDED] = "1"
    os.execv(sys.executable, [sys.executable, "-P", str(GUARD), "pipeline.orchestration.flow", *sys.argv[1:]])

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# A first start migrates an empty database; Prefect's own 20 s are too few on a busy machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.futures import PrefectFuture
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_CORS_ALLOWED_ORIGINS,
    temporary_settings,
)
from prefect.states import Completed, Failed, State

from pipeline import files
from pipeline.errors import UserError
from pipeline.orchestration import approval, checkout, code_changes, dvc_lock, graph, verdicts
from pipeline.orchestration.flow_view import BAD, SENTENCE, Outcome, followed, publish, reason, summary, teller
from pipeline.orchestration.process import Processes, StageError, StageTimeoutError
from pipeline.paths import FLOW

_WORKER_RUN = "PREFECT__FLOW_RUN_ID"
APPROVAL_S = 24 * 3600
ANSWERS = FLOW / "approvals"
REGISTER = "register"
# What DVC prints when it had nothing to run.
_UNCHANGED = {
    "didn't change, skipping": "unchanged",
    "is cached - skipping run": "restored from the run cache",
}


class Approval(RunInput):
    """What a person answers before models are registered."""

    register_models: bool
    reason: str


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
            lines = processes.run(command, timeout_s=stage.meta.timeout_s, tell=teller())
    except StageTimeoutError as error:
        raise StageError(f"{stage.name}: {error}; raise timeout_s in the stage's meta in dvc.yaml") from None
    except StageError as error:
        verdict = verdicts.of(stage)
        if verdict is not None:
            publish(verdict)
        raise StageError(f"{stage.name}: {verdict.sentence if verdict and not verdict.passed else error}") from None
    for line in lines:
        for words, message in _UNCHANGED.items():
            if words in line:
                return Completed(name="Cached", message=message)
    verdict = verdicts.of(stage)
    if verdict is not None and not verdict.passed:
        publish(verdict)
        return Completed(name="Refused", message=verdict.sentence)
    return Completed(message="ran")


@task(name=REGISTER, task_run_name=REGISTER, cache_policy=NO_CACHE, persist_result=False)
def register_task(processes: Processes, approved: list[approval.Candidate] | None) -> Any:
    """The last task: registers the models whose gate passed; where a person approved, those and their bytes only."""
    command = ["pipeline.cli.register"]
    if approved is not None:
        command += ["--models", ",".join(one.model for one in approved)]
        command += ["--sha256", ",".join(one.sha256 for one in approved)]
    processes.run(command, timeout_s=None, tell=teller())
    return Completed(message="ran")


@flow(name="tohum", persist_result=False, validate_parameters=True)
def tohum(
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
        max_parallel: stages side by side at most; none leaves it to the cores that each stage asks for.
        approve: wait for a person's answer before registering.
        registration: register the models whose gate passed, at the end of a whole run.
        profile: one or more of infra/profiles; params.yaml is theirs during the run.
        set: dotted path in params.yaml -> its value during the run, after the profiles.
    """
    names = [profile] if isinstance(profile, str) else profile or []
    try:
        with checkout.held(str(flow_run.name)), checkout.params_of_run(names, set or {}) as said:
            for line in said:
                get_run_logger().warning(line)
            return _run(targets, force, max_parallel, approve, registration)
    except UserError as error:
        return Failed(message=str(error))


def _run(targets: list[str] | None, force: bool, max_parallel: int | None, approve: bool, register: bool) -> State[Any]:
    """The flow in a checkout that is held, with the params of this run."""
    logger = get_run_logger()
    for line in dvc_lock.repair():
        logger.warning(line)
    processes = Processes(TOHUM_PIPELINE_UID=str(flow_run.id).replace("-", ""))
    whole = _with_code(processes)
    wanted = whole.only(targets) if targets else whole
    if os.environ.get(_WORKER_RUN):
        _end_with_parent()
    try:
        outcomes = _Schedule(wanted, force, max_parallel, processes).run()
        if register and not targets and not any(o.state in BAD for o in outcomes):
            outcomes.append(_register(approve, processes))
    finally:
        processes.stop()
    table = summary(outcomes)
    create_markdown_artifact(key="tohum-summary", markdown=table, description="every stage, its state and seconds")
    if why := reason(outcomes):
        logger.error(why)  # Prefect puts a message of its own in the place of this one after a pause that timed out
        return Failed(message=why)
    refused = [o.stage for o in outcomes if o.state == "Refused"]
    more = f"; refused by their gate: {', '.join(refused)}" if refused else ""
    return Completed(message=f"{len(outcomes)} tasks, {sum(o.state == 'Cached' for o in outcomes)} cached{more}")


def _with_code(processes: Processes) -> graph.Graph:
    """The graph once stage `code` is up to date: what the others depend on is what it writes.

    Raises:
        UserError: a graph that DVC refuses, or stage `code` failed.
    """
    whole = graph.read()
    code = whole.stages.get(code_changes.STAGE)
    if code is None or not code.changes:
        return whole
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", code.name]
    try:
        processes.run(command, timeout_s=code.meta.timeout_s, tell=teller())
    except (StageError, StageTimeoutError) as error:
        raise UserError(f"{code.name}: {error}") from None
    return graph.read()


class _Schedule:
    """Submits each stage once what it waits for has ended well and its cores are free."""

    def __init__(self, stages: graph.Graph, force: bool, max_parallel: int | None, processes: Processes) -> None:
        self.force, self.processes = force, processes
        self.affected = {stage.name for stage in stages} if force else stages.affected()
        self.cores = os.cpu_count() or 1
        self.most = self.cores if max_parallel is None else max_parallel
        self.waiting = list(stages)
        self.known = set(stages.stages)
        self.running: dict[str, tuple[graph.Stage, PrefectFuture[Any], float]] = {}
        self.futures: dict[str, PrefectFuture[Any]] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> list[Outcome]:
        """Runs everything; returns one outcome per stage, in the order of the graph."""
        order = [stage.name for stage in self.waiting]
        while self.waiting or self.running:
            for stage in [s for s in self.waiting if self._ready(s)]:
                if self._fits(stage):
                    self.waiting.remove(stage)
                    self._submit(stage)
            if self.running:
                self._note(self.ended.get())
        return [self.outcomes[name] for name in order]

    def _ready(self, stage: graph.Stage) -> bool:
        return all(name in self.outcomes for name in stage.upstream if name in self.known)

    def _fits(self, stage: graph.Stage) -> bool:
        hopeless = any(self.outcomes[name].state in BAD for name in stage.upstream if name in self.known)
        if hopeless or stage.name not in self.affected or not self.running:
            return True
        busy = [other for other, *_ in self.running.values()]
        if len(busy) >= self.most or ("gpu" in stage.meta.tags and any("gpu" in o.meta.tags for o in busy)):
            return False
        return self._share(stage) + sum(map(self._share, busy)) <= self.cores

    def _share(self, stage: graph.Stage) -> int:
        return min(stage.meta.cores or self.cores, self.cores)

    def _submit(self, stage: graph.Stage) -> None:
        """Starts the stage's task. Behind a failed stage Prefect itself leaves the task `NotReady`."""
        described = stage_task.with_options(
            name=stage.name,
            task_run_name=stage.name,
            tags=stage.meta.tags,
            retries=stage.meta.retries,
            retry_condition_fn=lambda *_: not self.processes.stopped,
            retry_delay_seconds=[2.0 * 2**n for n in range(stage.meta.retries)],
        )
        fresh = stage.name not in self.affected
        arguments: dict[str, Any] = {"stage": stage, "fresh": fresh, "force": self.force}
        before = [self.futures[name] for name in stage.upstream if name in self.futures]
        future: PrefectFuture[Any] = described.submit(**arguments, processes=self.processes, wait_for=before)
        self.futures[stage.name] = future
        self.running[stage.name] = (stage, future, time.monotonic())
        future.add_done_callback(lambda _: self.ended.put(stage.name))

    def _note(self, name: str) -> None:
        _, future, began = self.running.pop(name)
        self.outcomes[name] = _outcome(name, future, time.monotonic() - began)


def _outcome(name: str, future: PrefectFuture[Any], seconds: float) -> Outcome:
    """Reads how a task ended; one that Prefect never started counts as not run."""
    future.wait()
    state = future.state
    if state.is_pending():
        return Outcome(name, "NotRun", 0.0, "something it depends on failed")
    return Outcome(name, state.name or state.type.value, seconds, _ERROR.sub("", state.message or ""))


# What Prefect puts before the text of an exception.
_ERROR = re.compile(r"^Task run encountered an exception:? \w+: ")


def _register(approve: bool, processes: Processes) -> Outcome:
    """The last task, after a person's consent where that is asked for: then to the models shown, and only them."""
    approved, answer = None, None
    if approve:
        found = approval.candidates()
        approved = [one for one in found if one.passed]
        if not approved:
            return Outcome(REGISTER, "Declined", 0.0, "no model of register.models in params.yaml passed its gate")
        answer = _ask(approval.table(found))
        if answer is None:
            why = f"nobody answered within {APPROVAL_S / 3600:g} h, so nothing was registered; run the flow again"
            return Outcome(REGISTER, "Failed", 0.0, why)
        if not answer.register_models:
            return Outcome(REGISTER, "Declined", 0.0, answer.reason)
        if why := approval.changed(approved):
            return Outcome(REGISTER, "Failed", 0.0, why)
    began = time.monotonic()
    future = register_task.submit(processes, approved)
    outcome = _outcome(REGISTER, future, time.monotonic() - began)
    if answer is not None and outcome.state not in BAD:
        return replace(outcome, message=f"approved: {answer.reason}")
    return outcome


def _ask(table: str) -> Approval | None:
    """Shows the models to a person and waits; the answer is kept with what was shown. None if nobody answers."""
    key, about = "tohum-approval", "models, scores and hashes that wait for an approval"
    create_markdown_artifact(key=key, markdown=table, description=about)
    text = f"These models wait to be registered, with these bytes and no others.\n\n{table}"
    try:
        answer = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=text), timeout=APPROVAL_S, key="approval"
        )
    except FlowPauseTimeout:
        return None
    said = "registration approved" if answer.register_models else "registration declined"
    record = f"**{said}**: {verdicts.cell(answer.reason, SENTENCE)}\n\n{table}"
    create_markdown_artifact(key=key, markdown=record, description="the answer, and the models that it was about")
    files.write_text(ANSWERS / f"{flow_run.id}.md", record)
    return Approval(register_models=answer.register_models, reason=answer.reason)


def _end_with_parent() -> None:
    """Ends this flow run when the worker that started it is gone: a killed worker trains no further."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def closed() -> AbstractContextManager[object]:
    """Settings under which the temporary server that Prefect starts answers this flow alone, and no web page."""
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


def _setting(text: str, parser: argparse.ArgumentParser) -> tuple[str, Any]:
    """`pretrain.schedule.steps=50` as a path and a value."""
    path, equals, value = text.partition("=")
    try:
        if path and equals:
            return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    parser.error(f"--set is {text!r}, expected a dotted path and a value, such as pretrain.schedule.steps=50")


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code: 0 done, 1 something failed, 130 interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.orchestration.flow", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--targets", nargs="+", metavar="STAGE", help="only these stages and all they need")
    parser.add_argument("--force", action="store_true", help="run every stage even if nothing changed")
    parser.add_argument("--max-parallel", type=int, metavar="N", help="stages side by side at most")
    parser.add_argument("--approve", action="store_true", help="wait for a person before registering")
    parser.add_argument("--no-register", action="store_true", help="do not register models at the end")
    parser.add_argument("--profile", nargs="+", metavar="NAME", help="params.yaml is these profiles during the run")
    about = "a setting of params.yaml during the run; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help=about)
    given = parser.parse_args(arguments)
    if given.max_parallel is not None and given.max_parallel < 1:
        parser.error(f"--max-parallel is {given.max_parallel}, expected 1 or more")
    values = dict(_setting(text, parser) for text in given.set)
    try:
        with closed():
            state = tohum(
                targets=given.targets,
                force=given.force,
                max_parallel=given.max_parallel,
                approve=given.approve,
                registration=not given.no_register,
                profile=given.profile,
                set=values,
                return_state=True,
            )
    except KeyboardInterrupt:
        print("error: interrupted; the next run continues", file=sys.stderr)
        return 130
    if state.is_completed():
        return 0
    print(f"error: {state.message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
