"""Answers of one request while their tokens arrive, and the two forms in which they are written: chat and completion.

A streamed answer is a sequence of server-sent events (`data: {...}`), as of OpenAI's API; its fields are written as
text around the JSON of the new piece, because there is one event for every token.
"""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

from pipeline.inference.answer_text import AnswerText
from pipeline.inference.engine import Token
from pipeline.serving.inbox import Inbox
from pipeline.tokenizer import Tokenizer

DONE = b"data: [DONE]\n\n"
_LEAST_LOGPROB = -9999.0
"""In place of minus infinity, which JSON lacks."""


@dataclass(eq=False)
class Answer:
    """One answer so far."""

    text: AnswerText
    said: str = ""
    ids: list[int] = field(default_factory=list)
    """Without the id that ended it."""
    logprobs: list[float] = field(default_factory=list)
    """ln p of each id under the model's own distribution."""
    tops: list[Sequence[tuple[int, float]]] = field(default_factory=list)
    """The likeliest ids at each position, where they were asked for."""
    offset: int = 0
    """Characters of the tokens that a completion's log-probabilities have named."""
    finish: str | None = None
    """stop or length; None while it goes on."""

    def add(self, token: Token) -> str:
        """Takes a token; returns the new text."""
        piece = ""
        if token.finished != "stop":
            self.ids.append(token.id)
            self.logprobs.append(token.logprob)
            self.tops.append(token.top)
            piece = self.text.add(token.id)
        if token.finished and not self.text.stopped:
            piece += self.text.end()
        if self.text.stopped:
            self.finish = "stop"
        else:
            self.finish = token.finished
        self.said += piece
        return piece


class Piece(NamedTuple):
    """New text of one answer."""

    number: int
    text: str
    first: int
    """Index of its first token among the answer's."""
    end: int
    """Index after its last token."""
    finish: str | None


@dataclass(eq=False)
class Answers:
    """All answers of a request."""

    inbox: Inbox
    answers: Sequence[Answer]
    began: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    """Seconds from the request to its first token."""

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """New text as it arrives, until all answers are finished. Raises as `Inbox.take`."""
        unfinished = len(self.answers)
        while unfinished:
            taken = await self.inbox.take()
            if self.first_token is None:
                self.first_token = time.perf_counter() - self.began
            pieces = []
            for number, token in taken:
                answer = self.answers[number]
                if answer.finish:
                    continue
                before = len(answer.ids)
                text = answer.add(token)
                if answer.finish:
                    unfinished -= 1
                    if token.finished is None:
                        self.inbox.end(number)
                pieces.append(Piece(number, text, before, len(answer.ids), answer.finish))
            yield pieces

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(len(answer.ids) for answer in self.answers)


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes an encoder a call


class Form(ABC):
    """The form of the answers of one endpoint, streamed or not."""

    EVENT: ClassVar[str]
    """`object` of an event of a stream."""

    def __init__(self, identity: str, model: str, tokenizer: Tokenizer, logprobs: bool, with_usage: bool) -> None:
        """`logprobs`: whether each token's are written; `with_usage`: whether the stream ends with the usage."""
        self._tokenizer, self._logprobs = tokenizer, logprobs
        self._head = {"id": identity, "object": self.EVENT, "created": int(time.time()), "model": model}
        self._before = f"data: {_json(self._head)[:-1]},"
        usage = ',"usage":null' if with_usage else ""
        self._after = f"}}]{usage}}}\n\n"

    @abstractmethod
    def opening(self, number: int) -> str:
        """The event before the first text of an answer; maybe empty."""

    @abstractmethod
    def piece(self, piece: Piece, answer: Answer) -> str:
        """The event of new text with its tokens."""

    @abstractmethod
    def ending(self, number: int, finish: str) -> str:
        """The event after the last text of an answer."""

    @abstractmethod
    def whole(self, answers: Sequence[Answer], usage: dict[str, int]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""

    def usage(self, usage: dict[str, int]) -> str:
        """The event before the last one, with the numbers of tokens."""
        return f'{self._before}"choices":[],"usage":{_json(usage)}}}\n\n'


class ChatForm(Form):
    """`chat.completion` and `chat.completion.chunk`."""

    EVENT = "chat.completion.chunk"

    def opening(self, number: int) -> str:
        """The role."""
        return (
            f'{self._before}"choices":[{{"index":{number},"delta":{{"role":"assistant","content":""}},'
            f'"logprobs":null,"finish_reason":null{self._after}'
        )

    def piece(self, piece: Piece, answer: Answer) -> str:
        """New text."""
        logprobs = _json(self._logprobs_of(answer, piece.first, piece.end)) if self._logprobs else "null"
        return (
            f'{self._before}"choices":[{{"index":{piece.number},"delta":{{"content":{_json(piece.text)}}},'
            f'"logprobs":{logprobs},"finish_reason":null{self._after}'
        )

    def ending(self, number: int, finish: str) -> str:
        """The reason of the end."""
        return (
            f'{self._before}"choices":[{{"index":{number},"delta":{{}},"logprobs":null,'
            f'"finish_reason":"{finish}"{self._after}'
        )

    def whole(self, answers: Sequence[Answer], usage: dict[str, int]) -> dict[str, Any]:
        """A `chat.completion`."""
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": answer.said, "refusal": None},
                "logprobs": self._logprobs_of(answer, 0, len(answer.ids)) if self._logprobs else None,
                "finish_reason": answer.finish,
            }
            for number, answer in enumerate(answers)
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def _logprobs_of(self, answer: Answer, first: int, end: int) -> dict[str, Any]:
        content = [
            self._token(number, logprob) | {"top_logprobs": [self._token(*other) for other in top]}
            for number, logprob, top in zip(
                answer.ids[first:end], answer.logprobs[first:end], answer.tops[first:end], strict=True
            )
        ]
        return {"content": content, "refusal": None}

    def _token(self, number: int, logprob: float) -> dict[str, Any]:
        data = self._tokenizer.decode_bytes([number])
        return {"token": data.decode("utf-8", "replace"), "logprob": finite(logprob), "bytes": list(data)}


class CompletionForm(Form):
    """`text_completion`, streamed or not."""

    EVENT = "text_completion"

    def opening(self, number: int) -> str:  # noqa: ARG002 - a form
        """Nothing."""
        return ""

    def piece(self, piece: Piece, answer: Answer) -> str:
        """New text."""
        logprobs = _json(self._logprobs_of(answer, piece.first, piece.end)) if self._logprobs else "null"
        return (
            f'{self._before}"choices":[{{"index":{piece.number},"text":{_json(piece.text)},'
            f'"logprobs":{logprobs},"finish_reason":null{self._after}'
        )

    def ending(self, number: int, finish: str) -> str:
        """The reason of the end."""
        return (
            f'{self._before}"choices":[{{"index":{number},"text":"","logprobs":null,'
            f'"finish_reason":"{finish}"{self._after}'
        )

    def whole(self, answers: Sequence[Answer], usage: dict[str, int]) -> dict[str, Any]:
        """A `text_completion`."""
        choices = [
            {
                "index": number,
                "text": answer.said,
                "logprobs": self._logprobs_of(answer, 0, len(answer.ids)) if self._logprobs else None,
                "finish_reason": answer.finish,
            }
            for number, answer in enumerate(answers)
        ]
        return {**self._head, "choices": choices, "usage": usage}

    def _logprobs_of(self, answer: Answer, first: int, end: int) -> dict[str, Any]:
        texts = [self._tokenizer.decode([number]) for number in answer.ids[first:end]]
        *offsets, answer.offset = accumulate(map(len, texts), initial=answer.offset if first else 0)
        return {
            "tokens": texts,
            "token_logprobs": [finite(logprob) for logprob in answer.logprobs[first:end]],
            "top_logprobs": [
                {self._tokenizer.decode([number]): finite(logprob) for number, logprob in top}
                for top in answer.tops[first:end]
            ],
            "text_offset": offsets,
        }


def finite(logprob: float) -> float:
    """A log-probability that JSON has."""
    return logprob if math.isfinite(logprob) else _LEAST_LOGPROB
