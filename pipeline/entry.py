"""Entry point of every command: telemetry off; an error is one line and an exit code instead of a traceback."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

# Telemetry of every tool off, before any of them is imported.
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


# The next step after a system error, by its number.
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space there, then run again"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "allow this user to read and write there, then run again"
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "raise the limit (`ulimit -n 4096`) or close other programs, then run again"
    ),
    errno.EIO: "the disk or the network drive fails; check it, then run again",
}
_MEMORY = (
    "free memory (other programs) and run again, which continues a training; or lower ordering.batch_size and raise "
    "schedule.accumulate in params.yaml, which starts it over"
)
# Out of memory in the texts of torch, CUDA and C++ libraries, whose errors have no type of their own.
_NO_MEMORY = "not enough memory|out of memory|can(no|')t allocate memory|bad_alloc|_alloc_failed|can't start new thread"
_RUST = r"\(os error (\d+)\)|Os \{ code: (\d+)"


def entry(main: Callable[[], int | None], again: str = "the next `dvc repro` continues") -> None:
    """Runs a command's main; exits with its code, 1 for an error of the user, 128 + n if stopped by signal n.

    Args:
        main: returns an exit code, or None for 0.
        again: printed after an interruption, the next step.
    """
    from pipeline.errors import UserError  # here, because the guard loads this file and should start at once

    os.environ.update(QUIET)
    if signal.getsignal(signal.SIGINT) == _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if (
            signal.getsignal(number) == signal.SIG_DFL
        ):  # so that temporary files are removed and the run's record is closed
            signal.signal(number, _interrupt)
    try:
        code = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as error:
        print(f"error: interrupted; {again}", file=sys.stderr)
        sys.exit(128 + (error.args[0] if error.args and isinstance(error.args[0], int) else signal.SIGINT))
    except Exception as error:
        if (sentence := resource_error(error)) is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)
    if isinstance(code, int) and code:
        sys.exit(code)


def resource_error(error: BaseException) -> str | None:
    """A sentence for an error about disk space, memory, file descriptors or permissions; None for all others.

    Libraries hide such an error in a text or behind an error of their own (`raise ... from`).
    """
    import re  # not needed by the guard, which loads this file

    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or re.search(_NO_MEMORY, text.lower()):
        return f"out of memory ({text[:200] or type(error).__name__}); {_MEMORY}"
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (code := re.search(_RUST, text)):
        number = int(code[1] or code[2])
    if number is None:
        number = next((code for code in (errno.ENOSPC, errno.EMFILE, errno.ENFILE) if os.strerror(code) in text), None)
    if "database or disk is full" in text:  # SQLite's
        number = errno.ENOSPC
    if number in _ADVICE:
        where = (error.filename if isinstance(error, OSError) else None) or "a file of this project"
        return f"{where}: {os.strerror(number)}; {_ADVICE[number]}"
    return None if error.__cause__ is None else resource_error(error.__cause__)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _leave(number: int, _: FrameType | None) -> None:
    """Ends the process at once: a library that is interrupted while it is imported may stay half initialised."""
    os.write(2, b"error: interrupted before it began\n")
    os._exit(128 + number)


# `python -m stages.<name>` imports its package, and so this file, before the stage itself and its libraries.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
