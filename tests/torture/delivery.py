"""Random faults of the tracking sender: killed, its store locked, garbage or lost, its queue and cursor damaged.

Each try is a run of up to 400 steps, resumed now and then with some steps said again, delivered to its own SQLite store
while up to six faults strike. At the end every step must be in the store once and the run's status be right.
"""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROMISE = "Every metric arrives once, whatever strikes the sender, its queue or its store"
COUNT = 50
KEY = "loss_nats"


class Try:
    """One run with its queue and store in a folder of its own, the working directory."""

    def __init__(self, seed: int, template: Path) -> None:
        self.rng, self._template = random.Random(seed), template
        self.uri = f"sqlite:///{Path.cwd()}/mlflow.db"
        self.uid = f"{seed:032x}"
        self.path = Path(".tohum/tracking") / f"{self.uid}.jsonl"
        self.new_store()

    def new_store(self) -> None:
        """A fresh store; copied, for making its tables takes seconds."""
        shutil.copy(self._template, "mlflow.db")

    def say(self, first: int, last: int, status: str | None) -> None:
        """The run says its steps from `first` to `last`, as a process that starts or resumes; None: it is killed."""
        from pipeline.tracking.tracker import FileTracker

        opening = {
            "time_ms": 1, "stage": "pretrain", "pipeline_uid": self.uid[::-1], "pid": 0, "process_started": 0.0,
            "uri": self.uri, "experiment": "torture", "tags": {"tohum.stage": "pretrain"}, "params": {"a": "1"},
        }  # fmt: skip
        run = FileTracker(opening, self.uid)
        for step in range(first, last):
            run.log({KEY: 1 / (step + 1)}, step=step)
        if status is not None:
            run.close(status, {"seconds_total": 1.0})

    def killed_sender(self) -> None:
        """The sender dies at a random moment, by a signal that nobody can catch."""
        child = os.fork()
        if child == 0:
            _deliver_and_leave()
        time.sleep(self.rng.uniform(0, 0.6))
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def locked_store(self) -> None:
        """Another program holds the database while the sender tries."""
        with sqlite3.connect("mlflow.db", isolation_level=None) as connection:
            connection.execute("begin exclusive")
            self.killed_sender()

    def garbage_store(self) -> None:
        """The database is overwritten, the sender meets it, a person moves it away."""
        Path("mlflow.db").write_bytes(self.rng.randbytes(20000))
        self.killed_sender()
        Path("mlflow.db").replace("mlflow.db.damaged")
        self.new_store()

    def lost_store(self) -> None:
        """The database is gone, and another one takes its place."""
        self.new_store()

    def damaged_cursor(self) -> None:
        """The cursor holds nonsense."""
        words = ["", "[]", "{}", '{"offset": -1}', '{"offset": 99999999}', '{"offset": 17}', '{"offset": "x"}', "\0\0"]
        self.path.with_suffix(".cursor").write_text(self.rng.choice(words))

    def damaged_line(self) -> None:
        """A line that a kill or a disk spoiled, between two that are whole."""
        if self.path.exists():
            with self.path.open("ab") as stream:
                stream.write(b'\n{"event": "metr' + self.rng.randbytes(8).replace(b"\n", b"") + b"\n")


FAULTS: list[Callable[[Try], None]] = [
    Try.killed_sender,
    Try.locked_store,
    Try.garbage_store,
    Try.lost_store,
    Try.damaged_cursor,
    Try.damaged_line,
]


def run(count: int, folder: Path) -> dict[str, Any]:
    """Tries `count` seeded runs in `folder`; how many held, and the first misses."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    import pipeline.tracking.mlflow_store  # noqa: F401  each sender is forked: mlflow is imported once

    template = _template(folder.resolve())
    misses, struck = [], dict.fromkeys((fault.__name__ for fault in FAULTS), 0)
    for seed in range(count):
        with _in(folder / f"try-{seed}"):
            if miss := _one(Try(seed, template), struck):
                misses.append(f"seed {seed}: {miss}")
    return {"tried": count, "held": count - len(misses), "misses": misses[:5], "faults": struck}


def _one(this: Try, struck: dict[str, int]) -> str:
    steps = this.rng.randint(1, 400)
    cuts = sorted(this.rng.sample(range(steps), min(steps, this.rng.randint(0, 2))))
    begins = [0, *(max(0, cut - this.rng.randint(0, 20)) for cut in cuts)]
    ends = [*cuts, steps]
    for first, last in zip(begins, ends, strict=True):
        this.say(first, last, "FINISHED" if last == steps else this.rng.choice([None, "KILLED"]))
        for _ in range(this.rng.randint(0, 2)):
            fault = this.rng.choice(FAULTS)
            struck[fault.__name__] += 1
            fault(this)
    child = os.fork()
    if child == 0:
        _deliver_and_leave()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        return f"the last drain ended with {code}: {Path('sender.log').read_text()[-300:]}"
    with sqlite3.connect("mlflow.db") as connection:
        found = connection.execute("select step, value from metrics where key = ? order by step", (KEY,)).fetchall()
        runs = connection.execute("select status from runs where name = 'pretrain'").fetchall()
    if runs != [("FINISHED",)]:
        return f"runs in the store: {runs}"
    if found != [(step, 1 / (step + 1)) for step in range(steps)]:
        return f"{len(found)} points for {steps} steps"
    return ""


def _deliver_and_leave() -> None:
    """In a forked child: one drain, then the end without the parent's own."""
    code = 3
    try:
        log = os.open("sender.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from pipeline.tracking import sender

        code = sender.drain(timeout_s=60)
    finally:
        os._exit(code)


def _template(folder: Path) -> Path:
    """An empty store, made by a child so that this process never opens one."""
    child = os.fork()
    if child == 0:
        from mlflow import MlflowClient

        MlflowClient(f"sqlite:///{folder}/template.db").search_experiments()
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("no store could be made")
    return folder / "template.db"


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with contextlib.chdir(folder):
        yield


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
