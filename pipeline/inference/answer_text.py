"""The text of an answer as its tokens arrive: whole characters, without the task's opening, up to a stop text."""

from collections.abc import Sequence

from pipeline.tasks import Task
from pipeline.tokenizer.streaming import TextStream


class AnswerText:
    """Incremental text of one answer.

    Attributes:
        stopped: whether a stop text was found; the text ends before it.
    """

    def __init__(self, task: Task, stops: Sequence[str] = ()) -> None:
        """`stops`: texts at which the answer ends."""
        self._task, self._stream, self._stops = task, TextStream(task.tokenizer), [text for text in stops if text]
        self._opening, self._waiting = True, ""
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is final with this token, maybe empty."""
        piece = self._stream.add(token)
        return self._up_to_stop(self._after_opening(piece) if self._opening else piece)

    def end(self) -> str:
        """The rest of the text, when no more tokens come."""
        rest = self._waiting + self._stream.rest()
        text = self._up_to_stop(self._task.answer(rest) if self._opening else rest)
        if not self.stopped:
            text, self._held = text + self._held, ""
        return text

    def _after_opening(self, piece: str) -> str:
        """The piece without the prefix of an answer, which may take several tokens."""
        piece, opens = self._waiting + piece, self._task.opens
        if len(piece) < len(opens) and opens.startswith(piece):
            self._waiting = piece
            return ""
        if not piece:
            return ""
        self._opening, self._waiting = False, ""
        return self._task.answer(piece)

    def _up_to_stop(self, piece: str) -> str:
        """The piece up to a stop text; an end that may begin one is held back."""
        if not self._stops or self.stopped:
            return "" if self.stopped else piece
        text, self._held = self._held + piece, ""
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        longest = max(len(stop) for stop in self._stops) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                self._held = text[-size:]
                return text[:-size]
        return text
