"""What every stage starts with, and how it ends when the machine has no more to give."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.entry import resource_error
from pipeline.paths import CODE


class LikeSafetensorsError(Exception):
    """One that holds the system's error in its text alone, as libraries in Rust do."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "models/a"), "models/a: No space left on device; free"),
        (OSError(errno.EFBIG, "File too large", "a"), "a: File too large; free space"),
        (OSError(errno.EMFILE, "Too many open files", "b"), "b: Too many open files; raise the limit (`ulimit"),
        (OSError(errno.ENFILE, "Too many open files in system"), "Too many open files in system; raise the limit"),
        (OSError(errno.EROFS, "Read-only file system", "c"), "c: Read-only file system; allow this user"),
        (OSError(errno.EIO, "Input/output error", "d"), "d: Input/output error; the disk"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory ([Errno 12] Cannot allocate memory)"),
        (MemoryError(), "out of memory (MemoryError); free memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "out of memory (CUDA out of memory."),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "out of memory"),
        (RuntimeError("can't start new thread"), "out of memory"),
        (LikeSafetensorsError("I/O error: full (os error 28)"), "No space left on device; free space"),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), "Too many open files; raise"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_an_error_of_the_machine_is_a_sentence_with_the_next_step(error: BaseException, said: str) -> None:
    assert said in str(resource_error(error))
    wrapped = ValueError("could not do it")
    wrapped.__cause__ = error
    assert said in str(resource_error(wrapped))


@pytest.mark.parametrize(
    "error", [ValueError("Permission denied"), KeyError("x"), FileNotFoundError(2, "No such file", "x")]
)
def test_a_defect_keeps_its_traceback(error: BaseException) -> None:
    assert resource_error(error) is None


def ended(main: str) -> subprocess.CompletedProcess[str]:
    """How a stage with this main ends."""
    code = f"import os, resource, signal, time\nfrom stages import entry\ndef main():\n{main}\nentry(main)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_stage_without_descriptors_says_so() -> None:
    done = ended(
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n    kept = [open(os.devnull) for _ in range(30)]"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: /dev/null: Too many open files; raise the limit")
    assert done.stderr.count("\n") == 1


def test_a_stage_without_memory_says_so() -> None:
    done = ended("    kept = bytearray(1 << 60)")
    assert done.returncode == 1
    assert done.stderr.startswith("error: out of memory (MemoryError); free memory")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_tidies_and_names_itself(number: signal.Signals) -> None:
    """Lost otherwise: temporary files stay, and the run's record never ends."""
    body = (
        f"    try:\n        os.kill(os.getpid(), {int(number)}); time.sleep(60)\n    finally:\n        print('tidied')"
    )
    done = ended(body)
    assert done.returncode == 128 + number
    assert done.stdout == "tidied\n"
    assert done.stderr == "error: interrupted; the next `dvc repro` continues\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    """nohup."""
    code = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from stages import entry\n"
    code += "entry(lambda: (os.kill(os.getpid(), signal.SIGHUP), print('done')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "done\n"


def test_an_interrupt_while_libraries_are_loaded_is_a_sentence(tmp_path: Path) -> None:
    """Seen: a library swallowed it, and the stage went on with half a numpy."""
    swallows = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    (tmp_path / "numpy.py").write_text(swallows, encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), str(CODE)])
    command = [sys.executable, "-m", "stages.pretrain"]
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "error: interrupted before it began\n"
