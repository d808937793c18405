"""The progress of a running stage, read from the lines that its run writes to `.tohum/tracking/<uid>.jsonl`."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.paths import QUEUE

_FIGURES = ("batch_loss_nats", "validation_loss_nats", "tokens_per_second")


@dataclass(frozen=True)
class Progress:
    """The last step of a training and its figures."""

    step: int
    steps: int | None
    """Of the whole schedule; None where the run's params have none."""
    figures: dict[str, float]

    @property
    def percent(self) -> float | None:
        """0 to 100."""
        return min(100.0, 100 * self.step / self.steps) if self.steps else None

    def __str__(self) -> str:
        of = f" of {self.steps}" if self.steps else ""
        named = [f"{name} {self.figures[name]:.4g}" for name in _FIGURES if name in self.figures]
        return f"step {self.step}{of}" + (f": {', '.join(named)}" if named else "")


class Follower:
    """Reads the new lines of the run of one stage in one pipeline."""

    def __init__(self, stage: str, pipeline_uid: str, queue: Path = QUEUE) -> None:
        self._stage, self._pipeline, self._queue = stage, pipeline_uid, queue
        self._path: Path | None = None
        self._began = time.time()
        self._offset = 0
        self._steps: int | None = None
        self._step = 0
        self._figures: dict[str, float] = {}

    def read(self) -> Progress | None:
        """The training's progress; None if there is no line about a new step."""
        if self._path is None and not self._find():
            return None
        new = False
        for event in self._events():
            step, values = event.get("step"), event.get("values")
            if event.get("event") == "metrics" and isinstance(step, int) and isinstance(values, dict):
                self._step, new = step, True
                self._figures |= {key: value for key, value in values.items() if isinstance(value, int | float)}
        return Progress(self._step, self._steps, dict(self._figures)) if new else None

    def _find(self) -> bool:
        """Looks for the file in which this stage of this pipeline has started."""
        for path in self._queue.glob("*.jsonl"):
            with suppress(OSError):
                if path.stat().st_mtime < self._began - 1:
                    continue  # of a run that ended before
            self._path, self._offset = path, 0
            for event in self._events(until_start=True):
                if event.get("stage") == self._stage and event.get("pipeline_uid") == self._pipeline:
                    verb = self._stage.partition("@")[0]
                    steps = str((event.get("params") or {}).get(f"{verb}.schedule.steps", ""))
                    self._steps = int(steps) if steps.isdigit() else None
                    return True
        self._path = None
        return False

    def _events(self, *, until_start: bool = False) -> Iterator[dict[str, Any]]:
        """Whole new lines as they are read; with `until_start` only the `start` ones."""
        assert self._path is not None
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                for line in stream:
                    if not line.endswith(b"\n"):
                        return
                    self._offset += len(line)
                    if until_start and not line.startswith(b'{"event": "start"'):
                        continue
                    try:
                        event = json.loads(line)
                    except ValueError:
                        continue
                    if isinstance(event, dict):
                        yield event
        except OSError:
            return
