"""Signals that end a training after the update at work, not in the middle of it, so that its state can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal asked for the end, and which."""

    asked = 0
    """The first signal's number; 0 for none."""

    def note(self, number: int, frame: FrameType | None) -> None:
        """Takes a signal. The second one does not wait: raises KeyboardInterrupt."""
        if self.asked:
            raise KeyboardInterrupt(number)
        self.asked = number


@contextmanager
def noted() -> Iterator[Stop]:
    """SIGINT and SIGTERM are noted inside instead of ending the process.

    One that the process ignores (nohup, a shell's background job) stays ignored; outside of the main thread nothing is
    noted, because Python handles signals there alone.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    taken = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, stop.note)
    try:
        yield stop
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
