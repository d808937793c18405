"""Prefect's view of a flow run: the stages' results, the reason of a failure, a gate's table, a training's progress."""

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
class StageResult:
    """The end of one stage: Prefect's name for its state, seconds, and a sentence."""

    stage: str
    state: str
    seconds: float
    message: str


def reason(results: list[StageResult]) -> str:
    """The reason of a failed run: the failed stages' messages, then the stages not run; empty if none failed."""
    failed = [result for result in results if result.state in BAD and result.state != "NotRun"]
    waiting = [result.stage for result in results if result.state == "NotRun"]
    sentences = [
        result.message if result.message.startswith(result.stage) else f"{result.stage}: {result.message}"
        for result in failed[:_NAMED]
    ]
    sentences += (
        [f"also failed: {', '.join(result.stage for result in failed[_NAMED:])}"] if len(failed) > _NAMED else []
    )
    return "; ".join([*sentences, *([f"not run: {', '.join(waiting)}"] if waiting else [])])


def summary(results: list[StageResult]) -> str:
    """A markdown table of every stage, its state, seconds and message."""
    rows = ["| stage | state | seconds | |", "|---|---|---:|---|"]
    for result in results:
        message = verdicts.cell(result.message, SENTENCE)
        rows.append(f"| {result.stage} | {result.state} | {result.seconds:.1f} | {message} |")
    return "\n".join(rows) + "\n"


def publish(verdict: verdicts.Verdict) -> None:
    """Makes an artifact of a gate's table."""
    create_markdown_artifact(
        key=verdict.key, markdown=verdict.markdown, description=f"results of the gate {verdict.gate}"
    )


def log_lines() -> Callable[[str], None]:
    """A function that writes a child process's lines to the task's log, without DVC's advice about git."""
    logger = get_run_logger()

    def log(line: str) -> None:
        if line.strip() and not line.strip().startswith(_ADVICE):
            logger.info(line)

    return log


@contextmanager
def followed(stage: str, pipeline_uid: str) -> Iterator[None]:
    """Writes the stage's progress to the task's log and an artifact, every few seconds and at the end."""
    follower = progress.Follower(stage, pipeline_uid)
    show, done = _ProgressView(stage), threading.Event()

    def watch() -> None:
        ended = False
        while not ended:
            ended = done.wait(PROGRESS_S)
            if (now := follower.read()) is not None:
                show(now)

    # Prefect finds the task run of a log line or an artifact in the context, which a new thread does not inherit.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(watch,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)


class _ProgressView:
    """One stage's progress in Prefect: log lines, and an artifact where the number of steps is known."""

    def __init__(self, stage: str) -> None:
        self._stage, self._log = stage, get_run_logger().info
        self._artifact: Any = None

    def __call__(self, now: progress.Progress) -> None:
        self._log(f"{self._stage}: {now}")
        if now.percent is None:
            return
        try:
            if self._artifact is None:
                key = "progress-" + re.sub(r"[^a-z0-9]+", "-", self._stage.lower()).strip("-")
                self._artifact = create_progress_artifact(now.percent, key=key, description=f"steps of {self._stage}")
            else:
                update_progress_artifact(self._artifact, now.percent)
        except Exception as error:  # the server may not answer for a while; the stage trains on
            self._log(f"{self._stage}: no progress artifact: {type(error).__name__}")
