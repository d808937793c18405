"""Starts the sender process (pipeline.tracking.sender) in the background, unless one runs already."""

import fcntl
import os
import subprocess
import sys

from pipeline.paths import CODE, QUEUE
from pipeline.tracking.journal_box import JournalBox, announce
from pipeline.tracking.tracker import warn

SENDER_LOCK = QUEUE / "sender.lock"
"""Locked by the sender while it runs."""


def start_sender() -> None:
    """Starts the sender in a session of its own unless one holds the lock; an error costs one printed line."""
    try:
        QUEUE.mkdir(parents=True, exist_ok=True)
        with SENDER_LOCK.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
        with (QUEUE / "sender.log").open("ab") as log:
            paths = [str(CODE), os.environ.get("PYTHONPATH", "")]
            settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.tracking.sender"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | settings,
            )
    except OSError as error:
        warn(error)


def deliver_journal(uri: str, experiment: str) -> None:
    """Says where the journal of a served model goes and starts the sender; the server calls it now and then.

    Args:
        uri: tracking URI of MLflow (`runtime.tracking.uri`).
        experiment: name of the runs' experiment (`runtime.tracking.experiment`).
    """
    try:
        announce(uri, experiment)
    except OSError as error:
        warn(error)
    if JournalBox().is_waiting():
        start_sender()
