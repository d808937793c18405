"""The process supervisor of every stage: it ends the stage's whole process group when its parent ends.

    python -m pipeline.orchestration.guard stages.pretrain ARGS...

Runs `python -m stages.pretrain ARGS...` in a session of its own, passes its exit code on (128 + n for signal n), and
ends the stage's process group when

- the guard receives TERM, INT or HUP: DVC ignores an interrupt while a stage runs, so the guard passes it on;
- its parent ends in any way: a killed `dvc repro` would otherwise leave a trainer that writes to the checkpoints
  of the next one. The parent's death is seen by polling, which works on every Unix (a signal at the parent's death,
  PR_SET_PDEATHSIG, is Linux only and does not reach grandchildren);
- the guard itself is killed: a sentinel process waits for the end of file on a pipe that only the guard holds open;
- the stage ends and leaves processes in its group. A process that must outlive the stage takes its own session.

Stopping sends INT, as Ctrl-C does (temporary files are removed, a training saves its state), then TERM, then KILL. One
process stays until dvc has ended, however it ends, and then repairs DVC's locks (pipeline/orchestration/dvc_lock.py).
Standard library only, and little of it, because every stage pays for this start; one file, because it is also run by
its path, where no other module of the project can be imported.
"""

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

POLL_S = 0.2
# Seconds given after INT and then after TERM; together less than a person waits before killing by hand.
PATIENCE_S, LAST_S = 2.0, 1.5
# A training ends its current update and saves its state; every process that waits for a training's guard waits longer:
# dvc's own guard, pipeline/orchestration/process.py (GUARD_STOPS_S), the guard of the flow.
SAVING = dict.fromkeys(("stages.pretrain", "stages.finetune", "pipeline.studies.trials"), 30.0)
WAITING = SAVING | {"dvc": 40.0, "pipeline.cli flow": 50.0}
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MARK = "TOHUM_GUARDED"
"""In the environment of every process under a guard; `tohum doctor` uses it to see whether a stage had a guard."""
# Added to a stage's environment where a variable is not set already; no bit depends on it. GOMP_SPINCOUNT: OpenMP's
# threads spin while they wait, which takes the cores from processes beside them (the sender, another stage): training
# beside one busy process is five times faster with a short spin, and no slower by itself (tests/bench/spin.py).
# ARROW_DEFAULT_MEMORY_POOL: Arrow's own allocators keep much of the freed memory; a stage that reads in small batches
# peaked a sixth higher with them (tests/bench/memory.py).
ENVIRONMENT = {
    "GOMP_SPINCOUNT": "5000",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    MARK: "1",
}
SHELLS = {"sh", "ash", "bash", "dash", "fish", "ksh", "zsh"}


def main(command: list[str]) -> int:
    """Runs `python -m <command>` guarded; returns its exit code, 128 + n if it or the guard met signal n."""
    if not command:
        print(
            "error: no stage named; use python -m pipeline.orchestration.guard stages.<name> [arguments]",
            file=sys.stderr,
        )
        return 2
    lineage = _lineage()
    _mend_after(lineage[-1])
    patience = WAITING.get(command[0], WAITING.get(" ".join(command[:2]), PATIENCE_S))
    wake, received = _listen()
    ready, go = os.pipe()
    stage = os.fork()
    if stage == 0:
        _become_stage(command, ready, go)
    os.close(ready)
    sentinel, lifeline = _start_sentinel(stage, go, patience)
    os.write(go, b"g")
    os.close(go)
    code = _watch(stage, wake, received, lineage, patience)
    _dismiss(sentinel, lifeline)
    return code


def _become_stage(command: list[str], ready: int, go: int) -> None:
    """In the child: waits for the sentinel's start, then becomes the stage. Never returns."""
    os.setsid()
    os.close(go)
    # The signals that the guard catches fall back to their defaults at exec.
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.read(ready, 1):
        os.execv(sys.executable, [sys.executable, "-m", *command])
    os._exit(1)


def _start_sentinel(stage: int, go: int, patience: float) -> tuple[int, int]:
    """Forks the process that outlives a killed guard; returns it and the pipe end that must stay open."""
    reader, lifeline = os.pipe()
    sentinel = os.fork()
    if sentinel != 0:
        os.close(reader)
        return sentinel, lifeline
    os.close(lifeline)
    os.close(go)
    _withdraw()
    ended = os.read(reader, 1)
    if not ended:
        _stop(stage, lambda: not _alive(stage), lambda: time.sleep(POLL_S), patience)
    os._exit(0)


def _withdraw() -> None:
    """Detaches this process: a session of its own, the signals that stop a stage ignored, no output."""
    os.setsid()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)


def _mend_after(parent: int) -> None:
    """Starts a process that waits for the parent's end, if that is a dvc, and then repairs DVC's locks; one per dvc.

    A kill may leave dvc.lock and rwlock cut off, and every later dvc then stops before any code of ours runs. Only
    Linux reports the end of a process that is not a child (pidfd); elsewhere `tohum prepare` repairs them.
    """
    if not (os.path.isdir(".dvc/tmp") and _is_dvc(parent)):
        return
    try:
        ends = os.pidfd_open(parent)
    except (AttributeError, OSError):
        return
    child = os.fork()
    if child != 0:
        os.close(ends)
        os.waitpid(child, 0)
        return
    if os.fork() != 0:  # the grandchild is adopted by init: no zombie is left when the guard has ended
        os._exit(0)
    with suppress(OSError):
        _withdraw()
        os.makedirs(".tohum/locks", exist_ok=True)
        name = f".tohum/locks/dvc-{parent}"
        lock = os.open(name, os.O_RDWR | os.O_CREAT)  # not inherited by the program that is executed below
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        select.select([ends], [], [])
        os.unlink(name)
        log = os.open(".tohum/dvc_lock.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [os.path.abspath(f"{__file__}/../../.."), os.environ.get("PYTHONPATH", "")]
        ).rstrip(os.pathsep)
        os.execv(sys.executable, [sys.executable, "-m", "pipeline.orchestration.dvc_lock"])
    os._exit(0)


def _is_dvc(process: int) -> bool:
    """Whether a process is `dvc ...`, `python dvc ...` or `python -m dvc ...`."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:4]
    except OSError:
        return False
    return b"dvc" in [os.path.basename(word) for word in words]


def _dismiss(sentinel: int, lifeline: int) -> None:
    """Signals the end of the stage to the sentinel, and reaps it: the guard's parent may never reap."""
    with suppress(BrokenPipeError):  # the sentinel was killed
        os.write(lifeline, b"e")
    os.waitpid(sentinel, 0)


def _listen() -> tuple[int, list[int]]:
    """Catches signals; returns a file descriptor that wakes `select` and the list that they are noted in."""
    wake, wakened = os.pipe()
    os.set_blocking(wakened, False)
    os.set_blocking(wake, False)
    received: list[int] = []
    for number in STOPPING:
        signal.signal(number, lambda number, _: received.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakened, warn_on_full_buffer=False)
    return wake, received


def _watch(stage: int, wake: int, received: list[int], lineage: tuple[int, ...], patience: float) -> int:
    """Waits for the end of the stage, a signal or the parent's death, then empties the group; returns the exit code."""
    while not _exited(stage) and not received and _lineage() == lineage:
        _sleep(wake, POLL_S)
    asked = 0
    if not _exited(stage):
        asked = received[0] if received else signal.SIGHUP
        _stop(stage, lambda: _exited(stage), lambda: _sleep(wake, POLL_S), patience)
    _kill(stage, signal.SIGKILL)
    # Reaped last: until here the kernel cannot give the stage's process id to another process.
    code = os.waitstatus_to_exitcode(os.waitpid(stage, 0)[1])
    if asked:
        return 128 + asked
    return code if code >= 0 else 128 - code


def _stop(stage: int, ended: Callable[[], bool], pause: Callable[[], None], patience: float) -> None:
    """Sends INT, TERM and KILL to the stage's group, each later one only while `ended()` is false; KILL always."""
    for number, seconds in ((signal.SIGINT, patience), (signal.SIGTERM, LAST_S)):
        _kill(stage, number)
        deadline = time.monotonic() + seconds
        while not ended() and time.monotonic() < deadline:
            pause()
        if ended():
            break
    _kill(stage, signal.SIGKILL)


def _exited(stage: int) -> bool:
    """Whether the stage has ended; it is not reaped."""
    return os.waitid(os.P_PID, stage, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: only zombies are left
        return False
    return True


def _kill(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _sleep(wake: int, seconds: float) -> None:
    """Sleeps until a signal arrives, at most `seconds`."""
    if select.select([wake], [], [], seconds)[0]:
        os.read(wake, 4096)


def _lineage() -> tuple[int, ...]:
    """The parent's number, and the grandparent's where the parent is a shell that stayed in between."""
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
    except OSError:
        return (parent,)
    return (parent, int(rest.split()[1])) if name in SHELLS else (parent,)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
