"""Living processes of a project, by their working directory, and the holders of its lock files."""

import fcntl
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def processes(root: Path) -> "list[psutil.Process]":
    """Other living processes whose working directory is this project."""
    import psutil

    living, here = [], str(root.resolve())
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        if process.info["cwd"] == here and process.info["cmdline"] and process.pid != os.getpid():
            living.append(process)
    return living


def module(words: list[str]) -> str:
    """The module that a command line runs; empty if none."""
    return words[words.index("-m") + 1] if "-m" in words[:-1] else ""


def modules(root: Path) -> list[str]:
    """The modules that the project's living processes run."""
    return [module(process.info["cmdline"]) for process in processes(root)]


def holder(lock: Path) -> int | None:
    """The process that holds a lock file; 0 if its number is not readable, None if the lock is free."""
    try:
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                words = re.findall(r"\d+", file.read(100))
                return int(words[0]) if words else 0
    except FileNotFoundError:
        return None


def wrote(pid: int, path: Path) -> bool:
    """Whether the process that a temporary file is named after still runs, and began before the file did."""
    import psutil

    try:
        began: float = psutil.Process(pid).create_time()
        return began <= path.stat().st_mtime + 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return False
    except psutil.AccessDenied:
        return True
