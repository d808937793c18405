"""Tokens on their way from the decoding thread to the coroutine of a request."""

import asyncio
from collections.abc import Callable

from pipeline.inference.engine import Token


class Inbox:
    """Tokens of one request's answers, on their way from the thread to its coroutine."""

    def __init__(
        self, cancel: Callable[["Inbox", int | None], None], most_waiting: int, on_overflow: Callable[[], None]
    ) -> None:
        """An empty inbox.

        Args:
            cancel: ends one answer, or all (None): Decoder.cancel.
            most_waiting: tokens that may wait.
            on_overflow: called when more wait; all answers have been ended then.
        """
        self._cancel, self._most, self._on_overflow = cancel, most_waiting, on_overflow
        self._tokens: list[tuple[int, Token]] = []
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self.closed = False

    async def take(self) -> list[tuple[int, Token]]:
        """Answer number and token, for everything that arrived since the last call; waits for the first.

        Raises:
            UserError: the engine refused the prompt or a setting.
            ApiError: the engine failed.
        """
        while not self._tokens:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        taken, self._tokens = self._tokens, []
        return taken

    def put(self, number: int, token: Token) -> None:
        """Called in the event loop."""
        if self.closed:
            return
        self._tokens.append((number, token))
        self._arrived.set()
        if len(self._tokens) > self._most:
            self.close()
            self._on_overflow()

    def fail(self, error: Exception) -> None:
        """Called in the event loop: the answers end with an error."""
        self._error = error
        self._arrived.set()

    def end(self, number: int) -> None:
        """Frees the row of one answer, within a step."""
        self._cancel(self, number)

    def close(self) -> None:
        """Frees the rows of all answers that are not finished, within a step."""
        if not self.closed:
            self.closed = True
            self._cancel(self, None)
