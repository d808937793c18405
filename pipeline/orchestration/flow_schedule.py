"""The scheduling of a flow run: a stage is submitted to Prefect once its upstream stages ended and cores are free."""

import os
import queue
import re
import time
from typing import Any

from prefect.futures import PrefectFuture

from pipeline.orchestration import graph
from pipeline.orchestration.flow_tasks import stage_task
from pipeline.orchestration.flow_view import BAD, StageResult
from pipeline.orchestration.process import Processes

# Prefix that Prefect adds to the text of an exception.
_PREFIX = re.compile(r"^Task run encountered an exception:? \w+: ")


class Schedule:
    """Submits each stage once its upstream stages have ended well and its cores are free."""

    def __init__(self, stages: graph.Graph, force: bool, max_parallel: int | None, processes: Processes) -> None:
        self.force, self.processes = force, processes
        self.affected = {stage.name for stage in stages} if force else stages.affected()
        self.cores = os.cpu_count() or 1
        self.most = self.cores if max_parallel is None else max_parallel
        self.waiting = list(stages)
        self.known = set(stages.stages)
        self.running: dict[str, tuple[graph.Stage, PrefectFuture[Any], float]] = {}
        self.futures: dict[str, PrefectFuture[Any]] = {}
        self.results: dict[str, StageResult] = {}
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> list[StageResult]:
        """Runs every stage; returns one result each, in the order of the graph."""
        order = [stage.name for stage in self.waiting]
        while self.waiting or self.running:
            for stage in [stage for stage in self.waiting if self._ready(stage)]:
                if self._fits(stage):
                    self.waiting.remove(stage)
                    self._submit(stage)
            if self.running:
                self._note(self.ended.get())
        return [self.results[name] for name in order]

    def _ready(self, stage: graph.Stage) -> bool:
        return all(name in self.results for name in stage.upstream if name in self.known)

    def _fits(self, stage: graph.Stage) -> bool:
        blocked = any(self.results[name].state in BAD for name in stage.upstream if name in self.known)
        if blocked or stage.name not in self.affected or not self.running:
            return True
        busy = [other for other, *_ in self.running.values()]
        if len(busy) >= self.most or ("gpu" in stage.meta.tags and any("gpu" in other.meta.tags for other in busy)):
            return False
        return self._share(stage) + sum(map(self._share, busy)) <= self.cores

    def _share(self, stage: graph.Stage) -> int:
        return min(stage.meta.cores or self.cores, self.cores)

    def _submit(self, stage: graph.Stage) -> None:
        """Starts the stage's task. Downstream of a failed stage Prefect itself leaves the task `NotReady`."""
        task = stage_task.with_options(
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
        future: PrefectFuture[Any] = task.submit(**arguments, processes=self.processes, wait_for=before)
        self.futures[stage.name] = future
        self.running[stage.name] = (stage, future, time.monotonic())
        future.add_done_callback(lambda _: self.ended.put(stage.name))

    def _note(self, name: str) -> None:
        _, future, began = self.running.pop(name)
        self.results[name] = result_of(name, future, time.monotonic() - began)


def result_of(name: str, future: PrefectFuture[Any], seconds: float) -> StageResult:
    """The end of a task; one that Prefect never started counts as not run."""
    future.wait()
    state = future.state
    if state.is_pending():
        return StageResult(name, "NotRun", 0.0, "a stage that it depends on failed")
    return StageResult(name, state.name or state.type.value, seconds, _PREFIX.sub("", state.message or ""))
