"""Delivers what stages wrote to `.tohum/tracking/*.jsonl` to MLflow: live, and later if the server was away.

    python -m pipeline.sender             follows the files until nothing happens (stages start it)
    python -m pipeline.sender --drain     delivers what waits, says how much, ends: 0 if nothing is left

One process per project (a lock), the only one of a pipeline that imports mlflow. Every metric step arrives
once, whatever is killed and however often: a run is found again by the tag `tohum.run_uid`, metrics carry the
time at which they were measured (MLflow stores equal rows once), the cursor beside each file moves only after
delivery, and the steps that a resumed training repeats are known from it.
"""

import argparse
import contextlib
import fcntl
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline import files
from pipeline.tracking import QUEUE, SENDER_LOCK

if TYPE_CHECKING:
    from pipeline.delivery import Delivery

IDLE_SECONDS = 20.0
POLL_SECONDS = 0.5
AWAY_SECONDS = 300.0
_SLICE = 1 << 20
_LONGEST_WAIT = 30.0


@dataclass
class Cursor:
    """How far one file was delivered, kept in `<uid>.cursor`."""

    offset: int = 0
    run_id: str | None = None
    ended: bool = False
    """The last delivered word was the run's end (said by the stage, or seen: its process is gone)."""
    last_step: dict[str, int] = field(default_factory=dict)
    """Per metric, the highest step delivered: a training resumed from a checkpoint says some again."""


class Outbox:
    """One run's file and its cursor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cursor_path = path.with_suffix(".cursor")
        try:
            self.cursor = Cursor(**files.read_json(self._cursor_path))
        except (OSError, ValueError, TypeError):
            self.cursor = Cursor()  # delivering again is harmless
        self._process: tuple[int, float] | None = None

    def waiting(self) -> int:
        """Bytes not yet delivered; half a line at the end counts too."""
        try:
            return self.path.stat().st_size - self.cursor.offset
        except OSError:
            return 0

    def events(self) -> tuple[list[dict[str, Any]], int]:
        """The next whole lines (about a megabyte) and the offset behind them; damaged lines are left out."""
        with self.path.open("rb") as stream:
            stream.seek(self.cursor.offset)
            block = stream.read(_SLICE)
            while b"\n" not in block and (more := stream.read(_SLICE)):
                block += more
        whole = block[: block.rfind(b"\n") + 1]
        found = []
        for line in whole.split(b"\n"):
            with contextlib.suppress(ValueError):  # an empty line, or half of one that a kill cut
                if isinstance(event := json.loads(line), dict):
                    found.append(event)
        return found, self.cursor.offset + len(whole)

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
            return abs(psutil.Process(pid).create_time() - started) < 5
        except (psutil.Error, ValueError):
            return False

    def forget_process(self) -> None:
        """After new lines: a resumed run has another process."""
        self._process = None


def outboxes(folder: Path = QUEUE) -> list[Outbox]:
    """Every run's file, oldest first."""
    return [Outbox(path) for path in sorted(folder.glob("*.jsonl"), key=_modified)]


def waiting(folder: Path = QUEUE) -> tuple[int, int]:
    """Runs and bytes not yet delivered."""
    sizes = [size for box in outboxes(folder) if (size := box.waiting())]
    return len(sizes), sum(sizes)


class Sender:
    """Carries lines from outboxes to MLflow, patiently."""

    def __init__(self, folder: Path = QUEUE) -> None:
        self._folder = folder
        self._boxes: dict[Path, Outbox] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}
        self.metrics = 0

    def round(self) -> bool:
        """Delivers one slice of every file that has one; whether anything was delivered or a run is open.

        Raises:
            AwayError: a server cannot be reached or refuses for now; files for other servers were served.
        """
        from pipeline.delivery import AwayError

        for path in sorted(set(self._folder.glob("*.jsonl")) - set(self._boxes), key=_modified):
            self._boxes[path] = Outbox(path)
        busy = False
        away: dict[str, AwayError] = {}
        for box in self._boxes.values():
            start = _first(box.path) if box.waiting() > 0 or box.is_open() else None
            if start is None or start["uri"] in away:
                continue
            busy = True
            try:
                self._serve(box, start)
            except AwayError as error:
                away[start["uri"]] = error
        for problem in away.values():
            raise problem
        return busy

    def open_runs(self) -> int:
        """Stages that still run."""
        return sum(box.is_open() and box.alive() for box in self._boxes.values())

    def _serve(self, box: Outbox, start: dict[str, Any]) -> None:
        if box.waiting() > 0:
            self._deliver(box, start)
        elif not box.alive():  # killed before it could say so
            if box.cursor.run_id:
                self._delivery(start).end(box.cursor, "KILLED", int(_modified(box.path) * 1000))
            box.cursor.ended = True
            box.save()

    def _deliver(self, box: Outbox, start: dict[str, Any]) -> None:
        from pipeline.delivery import GoneError

        events, offset = box.events()
        if offset == box.cursor.offset:
            if box.alive():
                return
            offset += box.waiting()  # half a line that nobody will finish
        if any(event.get("event") == "start" for event in events):
            box.forget_process()
        cursor = replace(box.cursor, last_step=dict(box.cursor.last_step), offset=offset)
        try:
            self.metrics += self._delivery(start).send(cursor, events)
        except GoneError:  # the store was emptied under us: all of it again, to the store that is there now
            cursor = Cursor()
            self._deliveries.clear()
        box.cursor = cursor
        box.save()

    def _delivery(self, start: dict[str, Any]) -> "Delivery":
        from pipeline.delivery import Delivery

        address = (start["uri"], start["experiment"])
        if address not in self._deliveries:
            self._deliveries[address] = Delivery(*address)
        return self._deliveries[address]


def follow(folder: Path = QUEUE, idle_seconds: float = IDLE_SECONDS) -> None:
    """Delivers until no run is open and nothing came for `idle_seconds`, or the server stays away."""
    from pipeline.delivery import AwayError

    sender, wait = Sender(folder), 1.0
    busy_at = reached_at = time.monotonic()
    while time.monotonic() - busy_at < idle_seconds:
        try:
            if sender.round():
                busy_at = time.monotonic()
            wait, reached_at, pause = 1.0, time.monotonic(), POLL_SECONDS
        except AwayError as error:
            if time.monotonic() - reached_at > AWAY_SECONDS and not sender.open_runs():
                print(f"sender: {error}; the lines wait in {folder}", flush=True)
                return
            busy_at, pause, wait = time.monotonic(), wait, min(wait * 2, _LONGEST_WAIT)
        time.sleep(pause)


def drain(folder: Path = QUEUE, timeout_s: float = 120.0) -> int:
    """Delivers what waits now, or waits for the sender that is at it; 0 when all is delivered, 1 when not."""
    ends, problem, metrics = time.monotonic() + timeout_s, "", 0
    runs, _ = waiting(folder)
    while waiting(folder)[1] and time.monotonic() < ends:
        with _lock(folder) as held:
            if held is None:
                problem = "another sender is at it"
            else:
                sender = Sender(folder)
                problem = _rounds(sender, folder, ends)
                metrics += sender.metrics
        if problem:
            time.sleep(POLL_SECONDS)
    left, size = waiting(folder)
    if left:
        print(
            f"sender: {left} runs ({size} bytes) still wait in {folder}: {problem or 'time is up'}; "
            "start the server and repeat",
            file=sys.stderr,
        )
        return 1
    print(f"sender: nothing waits; {runs} runs and {metrics} metrics delivered now")
    return 0


def _rounds(sender: Sender, folder: Path, ends: float) -> str:
    """Delivers until nothing waits, the time is up or the server is away, which is said."""
    try:
        while waiting(folder)[1] and time.monotonic() < ends:
            sender.round()
    except OSError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[IO[str] | None]:
    """Yields None if another sender has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / SENDER_LOCK.name).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield stream


def _first(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as stream:
        for line in stream:
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("event") == "start":
                    return event
    return None


def _writer_of(path: Path) -> tuple[int, float]:
    """Process id and start time from the last `start` line; a run has few."""
    found = (0, math.inf)
    with path.open("rb") as stream:
        for line in stream:
            if line.startswith(b'{"event": "start"'):
                with contextlib.suppress(ValueError, KeyError):
                    event = json.loads(line)
                    found = (int(event["pid"]), float(event["process_started"]))
    return found


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def main() -> int:
    """The command line: see the module's docstring."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m pipeline.sender", description=about)
    parser.add_argument("--drain", action="store_true", help="deliver what waits now, then end")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for --drain (default: 120)")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="end after this many quiet seconds")
    options = parser.parse_args()
    if options.drain:
        return drain(timeout_s=options.timeout)
    with _lock(QUEUE) as held:
        if held is not None:
            with contextlib.suppress(OSError):
                os.nice(10)  # training comes first
            follow(idle_seconds=options.idle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
