"""The supervisor of the stack: starts its services in order, and each of them again when it ends.

    python -m pipeline.orchestration.stack_supervisor        (`tohum stack up` does it, in the background)

TERM or INT ends it: MLflow and Prefect first, then PostgreSQL, which writes everything out. The two Python services
run under guard.py, so they end with the supervisor however it ends; a PostgreSQL that was left is stopped by the next
start.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import FrameType

from pipeline.entry import QUIET
from pipeline.errors import UserError
from pipeline.orchestration import stack, stack_postgres
from pipeline.orchestration.stack import Service
from pipeline.paths import STACK

POLL_S = 0.5
_STEADY_S = 60.0
"""A service that ran as long as this is started again at once."""
_LONGEST_WAIT_S = 30.0
_STOP_S = 30.0


@dataclass
class Running:
    """A service, its process, and when it may start again."""

    service: Service
    process: "subprocess.Popen[bytes] | None" = None
    began: float = 0.0
    wait_s: float = 0.0
    next_start: float = field(default=0.0)

    def start(self) -> None:
        """Starts its process; a start that fails at once waits like a process that has ended."""
        how = stack_postgres.account_of_server() if self.service.name == "postgres" else {}
        cwd = "/" if self.service.name == "postgres" else None
        with self.service.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.service.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                start_new_session=True,
                env={**os.environ, **QUIET, **self.service.environment()},
                **how,
            )
        self.began = time.monotonic()
        print(f"{self.service.name}: process {self.process.pid}", flush=True)

    def ended(self) -> bool:
        """Whether its process has ended; plans the next start then."""
        if self.process is None:
            return True
        code = self.process.poll()
        if code is None:
            return False
        steady = time.monotonic() - self.began > _STEADY_S
        self.wait_s = 0.0 if steady else min(max(1.0, 2 * self.wait_s), _LONGEST_WAIT_S)
        self.next_start = time.monotonic() + self.wait_s
        print(f"{self.service.name}: ended with {code}; starts again in {self.wait_s:g} s", flush=True)
        self.process = None
        return True

    def stop(self, number: signal.Signals) -> None:
        """Ends its process; KILL where it does not end in time."""
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


class Supervisor:
    """All services; `stopped` ends the loop."""

    def __init__(self, services: tuple[Service, ...]) -> None:
        self.running = [Running(service) for service in services]
        self.stopped = False

    def loop(self) -> None:
        """Starts and restarts until `stopped`, then ends everything, the database last."""
        while not self.stopped:
            for one in self.running:
                if one.ended() and time.monotonic() >= one.next_start and not self.stopped:
                    one.start()
                    self._settle(one)
            time.sleep(POLL_S)
        for one in reversed(self.running):
            # INT is PostgreSQL's fast shutdown: it ends its clients' sessions and writes everything out
            one.stop(signal.SIGINT if one.service.name == "postgres" else signal.SIGTERM)

    def _settle(self, one: Running) -> None:
        """Waits for the database, which the others need, and makes what is missing in it."""
        if one.service.name != "postgres":
            return
        while not self.stopped and one.process is not None and one.process.poll() is None:
            if one.service.healthy():
                try:
                    stack_postgres.make_databases()
                except UserError as error:  # killed since: the loop starts it again
                    print(f"error: {error}", flush=True)
                else:
                    return
            time.sleep(POLL_S)


def main() -> int:
    """Runs the stack until it is told to end; 1 where another supervisor runs."""
    STACK.mkdir(parents=True, exist_ok=True)
    with stack.LOCK.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 1
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        supervisor = Supervisor(stack.services())

        def stop(_: int, __: FrameType | None) -> None:
            supervisor.stopped = True

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        try:
            stack_postgres.make()
            supervisor.loop()
        except UserError as error:
            print(f"error: {error}", flush=True)
            for one in reversed(supervisor.running):
                one.stop(signal.SIGINT)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
