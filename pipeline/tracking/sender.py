"""The sender: delivers `.tohum/tracking/*.jsonl` and the journal to MLflow, live, or later if the server was away.

    python -m pipeline.tracking.sender             follows the files until nothing is written (stages start it)
    python -m pipeline.tracking.sender --drain     delivers the waiting lines and ends (see `tohum deliver`)

One process per project (a lock), the only one of a pipeline that imports mlflow. Every step of a metric arrives exactly
once, however often processes are killed: a run is found again by the tag `tohum.run_uid`, metrics carry the time at
which they were measured (MLflow stores equal rows once), the cursor beside each file moves only after delivery, and the
steps that a resumed training repeats are known from the cursor. Requests and ratings of a served model (the journal) go
the same way, as traces and assessments (mlflow_traces.py).
"""

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.paths import QUEUE
from pipeline.tracking import store_file
from pipeline.tracking.delivery_errors import AwayError, DamagedError, GoneError
from pipeline.tracking.journal_box import JournalBox, JournalCursor
from pipeline.tracking.outbox import Cursor, Outbox, modified, waiting
from pipeline.tracking.start_sender import SENDER_LOCK

if TYPE_CHECKING:
    from pipeline.tracking.mlflow_store import Delivery
    from pipeline.tracking.mlflow_traces import Traces

IDLE_SECONDS = 20.0
POLL_SECONDS = 0.5
AWAY_SECONDS = 300.0
_LONGEST_WAIT = 30.0


class Sender:
    """Delivers the lines of all outboxes to MLflow."""

    def __init__(self, folder: Path = QUEUE) -> None:
        self._folder = folder
        self._boxes: dict[Path, Outbox] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}
        self._damaged: dict[str, AwayError] = {}
        self._journal = JournalBox(folder)
        self._traces: dict[tuple[str, str], Traces] = {}
        self.metrics = self.traces = 0

    def round(self) -> bool:
        """Delivers one slice of every waiting file; returns whether anything was delivered or a run is open.

        Raises:
            AwayError: a server cannot be reached or refuses for now; the files for other servers were delivered.
        """
        for path in sorted(set(self._folder.glob("*.jsonl")) - set(self._boxes), key=modified):
            self._boxes[path] = Outbox(path)
        busy = False
        away: dict[str, AwayError] = dict(self._damaged)
        for box in self._boxes.values():
            start = box.start if box.waiting() > 0 or box.is_open() else None
            if start is None or start["uri"] in away:
                continue
            busy = True
            try:
                self._serve(box, start)
            except DamagedError as error:  # for the rest of this process; the other stores come first
                self._damaged[start["uri"]] = away[start["uri"]] = error
            except AwayError as error:
                away[start["uri"]] = error
            except OSError as error:  # of our own files, such as a full disk: the lines wait
                away[start["uri"]] = AwayError(str(error))
        busy = self._reset_moved() or busy
        busy = self._try_journal(away) or busy
        for uri, problem in away.items():
            if uri not in self._damaged or not busy:
                raise problem
        return busy

    def open_runs(self) -> int:
        """Number of stages that still run."""
        return sum(box.is_open() and box.alive() for box in self._boxes.values())

    def _reset_moved(self) -> bool:
        """Resets cursors of runs that were delivered to a store other than the present one at their address."""
        reset = False
        for box in self._boxes.values():
            if not box.cursor.store or not box.start:
                continue
            delivery = self._deliveries.get((box.start["uri"], box.start["experiment"]))
            if delivery is not None and delivery.store and delivery.store != box.cursor.store:
                box.cursor, reset = Cursor(), True
                box.save()
        return reset

    def _serve(self, box: Outbox, start: dict[str, Any]) -> None:
        if box.waiting() > 0:
            self._deliver(box, start)
        elif not box.alive():  # killed before it wrote its end
            if box.cursor.run_id:
                self._delivery(start).end(box.cursor, "KILLED", int(modified(box.path) * 1000))
            box.cursor.ended = True
            box.save()

    def _deliver(self, box: Outbox, start: dict[str, Any]) -> None:
        events, offset = box.events()
        if offset == box.cursor.offset:
            if box.alive():
                return
            offset += box.waiting()  # half a line, which no process will complete
        if any(event.get("event") == "start" for event in events):
            box.forget_process()
        cursor = replace(box.cursor, last_step=dict(box.cursor.last_step), offset=offset)
        delivery = self._delivery(start)
        try:
            self.metrics += delivery.send(cursor, events)
            cursor.store = delivery.store
        except GoneError:  # the store was emptied meanwhile: all of it again, to the store that is there now
            cursor = Cursor()
            self._deliveries.clear()
        box.cursor = cursor
        box.save()

    def _try_journal(self, away: dict[str, AwayError]) -> bool:
        """Delivers the next entries of the journal, if there are some; notes a store that is away."""
        address = self._journal.address()
        if address is None or address[0] in away or not self._journal.is_waiting():
            return False
        try:
            self._serve_journal(address)
        except DamagedError as error:
            self._damaged[address[0]] = away[address[0]] = error
        except AwayError as error:
            away[address[0]] = error
        except (OSError, GoneError) as error:
            away[address[0]] = AwayError(str(error))
            self._traces.clear()
        return True

    def _serve_journal(self, address: tuple[str, str]) -> None:
        from pipeline.tracking.mlflow_traces import Traces

        if address not in self._traces:
            self._traces[address] = Traces(*address)
        traces, box = self._traces[address], self._journal
        store = traces.connect()
        if box.cursor.store not in ("", store):  # the store was moved away or lost: all of it again, to the next one
            box.cursor = JournalCursor()
        entries = box.entries()
        if not entries:
            return
        said = {entry["request"] for entry in entries if entry["kind"] in ("rating", "label")}
        self.traces += traces.send(entries, box.about(said) if said else {})
        box.cursor = JournalCursor(entries[-1]["n"], store)
        box.save()

    def _delivery(self, start: dict[str, Any]) -> "Delivery":
        from pipeline.tracking.mlflow_store import Delivery

        address = (start["uri"], start["experiment"])
        if address not in self._deliveries:
            self._deliveries[address] = Delivery(*address)
        return self._deliveries[address]


def follow(folder: Path = QUEUE, idle_seconds: float = IDLE_SECONDS) -> None:
    """Delivers until no run is open and nothing was written for `idle_seconds`, or the server stays away.

    It ends at once where the store is damaged: a process that has opened a database never opens another one there.
    """
    sender, wait = Sender(folder), 1.0
    busy_at = reached_at = time.monotonic()
    while time.monotonic() - busy_at < idle_seconds:
        try:
            if sender.round():
                busy_at = time.monotonic()
            wait, reached_at, pause = 1.0, time.monotonic(), POLL_SECONDS
        except DamagedError as error:
            print(f"sender: {error}", flush=True)
            return
        except AwayError as error:
            if time.monotonic() - reached_at > AWAY_SECONDS and not sender.open_runs():
                print(f"sender: {error}; the lines wait in {folder}", flush=True)
                return
            busy_at, pause, wait = time.monotonic(), wait, min(wait * 2, _LONGEST_WAIT)
        time.sleep(pause)


def drain(folder: Path = QUEUE, timeout_s: float = 120.0) -> int:
    """Delivers the waiting lines, or waits for a sender that runs; returns 0 when all are delivered, else 1."""
    ends, problem, metrics, traces = time.monotonic() + timeout_s, "", 0, 0
    runs, _ = waiting(folder)
    damaged = False
    while _is_waiting(folder) and time.monotonic() < ends and not damaged:
        with _lock(folder) as held:
            if held is None:
                problem = "another sender is running"
            else:
                sender = Sender(folder)
                problem, damaged = _rounds(sender, folder, ends)
                metrics, traces = metrics + sender.metrics, traces + sender.traces
        if problem and not damaged:
            time.sleep(POLL_SECONDS)
    left, size = waiting(folder)
    if left or JournalBox(folder).is_waiting():
        next_step = "" if damaged else "; start the server and repeat"
        waits = [f"{left} runs ({size} bytes)"] * bool(left) + ["entries of the journal"] * (not left)
        print(f"sender: {waits[0]} still wait in {folder}: {problem or 'timeout'}{next_step}", file=sys.stderr)
        return 1
    used = f", {traces} traces" if traces else ""
    print(f"sender: all runs delivered; {runs} runs and {metrics} metrics{used} delivered now")
    return 0


def _is_waiting(folder: Path) -> bool:
    """Whether lines of runs or entries of the journal wait."""
    return bool(waiting(folder)[1]) or JournalBox(folder).is_waiting()


def require_usable(uri: str) -> None:
    """Raises UserError where the file of a tracking address can be no database."""
    if why := store_file.problem(uri):
        raise UserError(store_file.advice(uri, why))


def _rounds(sender: Sender, folder: Path, ends: float) -> tuple[str, bool]:
    """Delivers until nothing waits, time is up or the server is away; the problem, and whether the store is damaged."""
    try:
        while _is_waiting(folder) and time.monotonic() < ends:
            sender.round()
    except DamagedError as error:
        return str(error), True
    except OSError as error:
        return str(error), False
    return "", False


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[IO[str] | None]:
    """Holds the sender's lock; yields None if another sender holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / SENDER_LOCK.name).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield stream


def main() -> int:
    """Command line; see the module's docstring."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking.sender", description=about)
    parser.add_argument("--drain", action="store_true", help="deliver the waiting lines, then end")
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
