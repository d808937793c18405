"""Prefect's view of a flow run: outcomes of stages, why the run failed, a gate's table, progress of a training."""

import contextvars
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

from pipeline.orchestration import progress, verdicts

PROGRESS_S = 5.0
SENTENCE = 600
BAD = {"Failed", "Crashed", "NotRun"}
"""States of a stage after which the run has failed."""
_NAMED = 3
_ADVICE = ("To track the changes", "git add ", "To enable auto staging", "dvc config core", "Use `dvc push`")


@dataclass(frozen=True)
class Outcome:
    """How one stage ended: Prefect's name for its state, seconds, and a sentence."""

    stage: str
    state: str
    seconds: float
    message: str


def reason(outcomes: list[Outcome]) -> str:
    """Why the run failed, first things first: what each failed stage said, then what was not run. "" if none failed."""
    failed = [o for o in outcomes if o.state in BAD and o.state != "NotRun"]
    waiting = [o.stage for o in outcomes if o.state == "NotRun"]
    said = [o.message if o.message.startswith(o.stage) else f"{o.stage}: {o.message}" for o in failed[:_NAMED]]
    said += [f"also failed: {', '.join(o.stage for o in failed[_NAMED:])}"] if len(failed) > _NAMED else []
    return "; ".join([*said, *([f"not run: {', '.join(waiting)}"] if waiting else [])])


def summary(outcomes: list[Outcome]) -> str:
    """A markdown table of every stage, its state, seconds and message."""
    rows = ["| stage | state | seconds | |", "|---|---|---:|---|"]
    for one in outcomes:
        message = verdicts.cell(one.message, SENTENCE)
        rows.append(f"| {one.stage} | {one.state} | {one.seconds:.1f} | {message} |")
    return "\n".join(rows) + "\n"


def publish(verdict: verdicts.Verdict) -> None:
    create_markdown_artifact(
        key=verdict.key, markdown=verdict.markdown, description=f"what the gate {verdict.gate} found"
    )


def teller() -> Callable[[str], None]:
    """Tells the task's log what a child prints, less DVC's advice about git."""
    logger = get_run_logger()

    def tell(line: str) -> None:
        if line.strip() and not line.strip().startswith(_ADVICE):
            logger.info(line)

    return tell


@contextmanager
def followed(stage: str, pipeline_uid: str) -> Iterator[None]:
    """Tells the task's log and a progress artifact how far the stage has come, every few seconds and at the end."""
    follower = progress.Follower(stage, pipeline_uid)
    show, done = _Shown(stage), threading.Event()

    def watch() -> None:
        ended = False
        while not ended:
            ended = done.wait(PROGRESS_S)
            if (now := follower.read()) is not None:
                show(now)

    # Prefect knows by the context which task run a log line and an artifact belong to.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)


class _Shown:
    """One stage's progress in Prefect: log lines, and an artifact where the number of steps is known."""

    def __init__(self, stage: str) -> None:
        self._stage, self._tell = stage, get_run_logger().info
        self._artifact: Any = None

    def __call__(self, now: progress.Progress) -> None:
        self._tell(f"{self._stage}: {now}")
        if now.percent is None:
            return
        try:
            if self._artifact is None:
                key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self._stage.lower()).strip("-")
                self._artifact = create_progress_artifact(now.percent, key=key, description=f"steps of {self._stage}")
            else:
                update_progress_artifact(self._artifact, now.percent)
        except Exception as error:  # the server may be away for a while; the stage trains on
            self._tell(f"{self._stage}: no progress artifact: {type(error).__name__}")
