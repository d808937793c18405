"""Guarded child processes: each runs under pipeline/orchestration/guard.py and ends with its parent."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pipeline.errors import UserError
from pipeline.orchestration.guard import MARK
from pipeline.paths import PACKAGE

GUARD = PACKAGE / "orchestration" / "guard.py"
PROGRAM = "pipeline.cli"
"""The project's command line `tohum`, started as a program like dvc; none of its modules is imported here."""
# Longer than the guard gives its group before it kills: a training below a dvc saves its state meanwhile.
GUARD_STOPS_S = 45.0


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def under_guard(verb: str, arguments: list[str]) -> None:
    """Continues this process as `tohum VERB ARGUMENTS` under the guard, unless it is guarded already."""
    if MARK not in os.environ:
        os.execv(sys.executable, [sys.executable, "-P", str(GUARD), PROGRAM, verb, *arguments])


class StageError(RuntimeError):
    """A child process that ended with an error; the text is its own error message."""


class StageTimeoutError(StageError):
    """A child process that was ended at its time-out."""


class Processes:
    """Child processes, one per waiting thread; `environment` is added to theirs."""

    def __init__(self, **environment: str) -> None:
        self.stopped = False
        self.environment = environment
        self._lock = threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()

    def run(
        self,
        command: list[str],
        *,
        timeout_s: float | None,
        tell: Callable[[str], None],
        accepted: Collection[int] = (0,),
    ) -> list[str]:
        """Runs `python -m <command>` guarded in the working directory; returns the lines it printed.

        Args:
            command: a module and its arguments.
            timeout_s: seconds after which it is ended; None for no limit.
            tell: called with every line as it is printed.
            accepted: exit codes that are no error.

        Raises:
            StageError: another exit code than these, or `stop` was called.
            StageTimeoutError: not done in time.
        """
        process = self._start(command)
        lines: list[str] = []
        reader = threading.Thread(target=_read, args=(process, lines, tell), daemon=True)
        reader.start()
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise StageTimeoutError(f"not done after {timeout_s:g} s, ended") from None
        finally:
            with self._lock:
                self._live.discard(process)
        # Not until the end of the file: a process that outlives the stage may hold the pipe open.
        reader.join(timeout=2)
        if code not in accepted:
            raise StageError("stopped" if self.stopped else _error_message(lines, code))
        return lines

    def stop(self) -> None:
        """Ends every child; none is started after that."""
        with self._lock:
            self.stopped = True
            live = list(self._live)
        for process in live:
            process.terminate()
        for process in live:
            _end(process)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        with self._lock:
            if self.stopped:
                raise StageError("stopped")
            process = subprocess.Popen(
                # -P: the guard's folder must not shadow the standard library (stages/tokenize.py)
                [sys.executable, "-P", str(GUARD), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, "PATH": path, "PYTHONUNBUFFERED": "1"},
            )
            self._live.add(process)
        return process


def beside(commands: Mapping[str, list[str]], lanes: int) -> None:
    """Runs `python -m <command>` for each name in the working directory, `lanes` at a time, with a bar on stderr.

    Raises:
        UserError: one of them failed; the others are ended.
    """
    from rich.console import Console
    from rich.progress import track

    processes = Processes()

    def run(name: str) -> None:
        try:
            processes.run(commands[name], timeout_s=None, tell=lambda _: None)
        except StageError as error:
            raise UserError(f"stopped at {name}: {error}") from error

    with ThreadPoolExecutor(max(1, min(lanes, len(commands)))) as pool:
        runs = [pool.submit(run, name) for name in commands]
        try:
            for done in track(as_completed(runs), f"{lanes} at a time", total=len(runs), console=Console(stderr=True)):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            processes.stop()
            raise


def _read(process: subprocess.Popen[bytes], lines: list[str], tell: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for raw in process.stdout:
        # of a progress bar only its last state
        line = raw.decode("utf-8", errors="replace").rstrip().rpartition("\r")[2]
        if line:
            lines.append(line)
            tell(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GUARD_STOPS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _error_message(lines: list[str], code: int) -> str:
    """The stage's own error message, else DVC's, else the last line of the output."""
    for start in ("error:", "ERROR:"):
        for line in reversed(lines):
            if line.startswith(start):
                return line.removeprefix(start).strip()
    return f"exit code {code}; last line: {lines[-1] if lines else 'none'}"
