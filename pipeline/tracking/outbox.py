"""The delivery queue on disk: `.tohum/tracking/<uid>.jsonl` holds a run's lines, `<uid>.cursor` the delivered part.

Both may be damaged (a kill, a full disk, a flipped bit): an unusable line is left out, an impossible cursor starts
again from the beginning, which delivers nothing twice.
"""

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.paths import QUEUE
from pipeline.tracking import store_file

_SLICE = 1 << 20
_LARGEST = 1 << 62
_ID = re.compile(r"[\w-]{1,64}")
_STATUSES = {"FINISHED", "FAILED", "KILLED"}
# Event -> the fields without which it cannot be delivered.
_NEEDED: dict[str, tuple[str, ...]] = {
    "start": ("uid", "pipeline_uid", "stage", "uri", "experiment", "time_ms", "tags", "params"),
    "metrics": ("time_ms", "numbers"),
    "headline": ("time_ms", "numbers"),
    "end": ("time_ms", "status", "numbers"),
    "params": ("texts",),
    "tags": ("texts",),
    "artifact": ("path", "sha256"),
    "page": ("path", "sha256"),
    "model": ("time_ms", "name", "path", "sha256", "numbers"),
}


@dataclass
class Cursor:
    """The delivered part of one file."""

    offset: int = 0
    """Bytes delivered."""
    run_id: str | None = None
    """MLflow's id of the run; None before it is made."""
    ended: bool = False
    """Whether the run's end was delivered, written by the stage or concluded from the end of its process."""
    last_step: dict[str, int] = field(default_factory=dict)
    """Metric -> highest step delivered: a training resumed from a checkpoint logs some steps again."""
    store: str = ""
    """Identity of the store that it was delivered to; "" where there was none, or by an older version."""


class Outbox:
    """One run's file and its cursor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cursor_path = path.with_suffix(".cursor")
        self._process: tuple[int, float] | None = None
        self._start: dict[str, Any] | None = None
        self.cursor = self._read_cursor()
        if self.cursor.offset and (start := self.start) and store_file.is_gone(start["uri"]):
            self.cursor = Cursor()  # the store was moved away or lost: everything is delivered again, to the next one

    @property
    def start(self) -> dict[str, Any] | None:
        """The first `start` line; None if there is none that can be read, and so nowhere to deliver to."""
        if self._start is None:
            self._start = _first(self.path)
        return self._start

    def waiting(self) -> int:
        """Bytes not yet delivered, half a line at the end included; 0 for a file without a `start`."""
        size = _size(self.path)
        return size - self.cursor.offset if size > self.cursor.offset and self.start is not None else 0

    def events(self) -> tuple[list[dict[str, Any]], int]:
        """The next whole lines (about a megabyte) and the offset behind them; damaged lines are left out."""
        with self.path.open("rb") as stream:
            stream.seek(self.cursor.offset)
            block = stream.read(_SLICE)
            while b"\n" not in block and (more := stream.read(_SLICE)):
                block += more
        whole = block[: block.rfind(b"\n") + 1]
        events = []
        for line in whole.split(b"\n"):
            event = _parsed(line)
            if event is not None and event.get("uid", self.path.stem) == self.path.stem:
                events.append(event)
            elif line.strip():
                print(f"sender: {self.path}: a damaged line of {len(line)} bytes is left out", flush=True)
        return events, self.cursor.offset + len(whole)

    def is_open(self) -> bool:
        """Whether the run's end has not been delivered yet."""
        return bool(self.cursor.offset) and not self.cursor.ended

    def save(self) -> None:
        """Stores the cursor: after a delivery, never before."""
        files.write_json(self._cursor_path, asdict(self.cursor))

    def alive(self) -> bool:
        """Whether the stage that writes this file still runs."""
        import psutil

        if self._process is None:
            self._process = _writer_of(self.path)
        pid, started = self._process
        try:
            return bool(abs(psutil.Process(pid).create_time() - started) < 5)
        except (psutil.Error, ValueError, OverflowError):
            return False

    def forget_process(self) -> None:
        """After new lines: a resumed run has another process."""
        self._process = None

    def _read_cursor(self) -> Cursor:
        """The stored cursor; a new one where there is none or it is impossible."""
        try:
            cursor = Cursor(**files.read_json(self._cursor_path))
            possible = (
                all(type(value) is kind for value, kind in ((cursor.offset, int), (cursor.ended, bool)))
                and isinstance(cursor.run_id, str | None)
                and isinstance(cursor.store, str)
                and all(type(step) is int for step in cursor.last_step.values())
                and self._is_boundary(cursor.offset)
            )
        except (OSError, ValueError, TypeError, AttributeError):
            return Cursor()
        return cursor if possible else Cursor()

    def _is_boundary(self, offset: int) -> bool:
        """Whether a line begins at this offset, or the file ends there."""
        size = _size(self.path)
        if not 0 < offset < size:
            return offset in (0, size)
        with self.path.open("rb") as stream:
            stream.seek(offset - 1)
            return b"\n" in stream.read(2)


def outboxes(folder: Path = QUEUE) -> list[Outbox]:
    """Every run's file, oldest first."""
    return [Outbox(path) for path in sorted(folder.glob("*.jsonl"), key=modified)]


def waiting(folder: Path = QUEUE) -> tuple[int, int]:
    """Runs and bytes not yet delivered."""
    sizes = [size for box in outboxes(folder) if (size := box.waiting())]
    return len(sizes), sum(sizes)


def modified(path: Path) -> float:
    """When the file was last written, in seconds; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line as an event that can be delivered; None for an empty, cut off or damaged one."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    needed = _NEEDED.get(str(event.get("event"))) if isinstance(event, dict) else None
    return event if needed is not None and all(_has(event, name) for name in needed) else None


def _has(event: Mapping[str, Any], name: str) -> bool:
    if name in ("numbers", "texts"):
        step, values = event.get("step"), event.get("values")
        kind: Any = int | float if name == "numbers" else str
        return (step is None or _is_count(step)) and isinstance(values, dict) and _all(values, kind)
    value = event.get(name)
    if name in ("tags", "params"):
        return isinstance(value, dict) and _all(value, str)
    if name == "time_ms":
        return _is_count(value)
    if name == "status":
        return value in _STATUSES
    return isinstance(value, str) and (not name.endswith("uid") or _ID.fullmatch(value) is not None)


def _all(values: dict[str, Any], kind: Any) -> bool:
    return all(
        isinstance(value, kind) and not (type(value) is int and abs(value) > _LARGEST) for value in values.values()
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _first(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError), path.open("rb") as stream:
        for line in stream:
            event = _parsed(line)
            if event is not None and event["event"] == "start" and event["uid"] == path.stem:
                return event
    return None


def _writer_of(path: Path) -> tuple[int, float]:
    """Process id and start time from the last `start` line; a run has few."""
    process = (0, math.inf)
    with path.open("rb") as stream:
        for line in stream:
            if line.startswith(b'{"event": "start"'):
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    event = json.loads(line)
                    process = (int(event["pid"]), float(event["process_started"]))
    return process
