"""Deferred signals: SIGINT and SIGTERM end training after the current update, so that its state can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """The signal that requested the end of training, if any."""

    signal = 0
    """The first signal's number; 0 for none."""

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Signal handler: records the first signal. Raises KeyboardInterrupt at the second."""
        if self.signal:
            raise KeyboardInterrupt(number)
        self.signal = number


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Inside the context SIGINT and SIGTERM are recorded instead of ending the process.

    A signal that the process ignores (nohup, a shell's background job) stays ignored. Outside of the main thread no
    signal is recorded, because Python runs signal handlers only in the main thread.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    replaced = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in replaced:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
