"""The response to a request for texts: its answers, streamed or whole, and their record."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.inference.answer_text import AnswerText
from pipeline.orchestration.same_origin import Receive, Scope, Send
from pipeline.serving.answers import DONE, Answer, Answers, Form, Piece, finite
from pipeline.serving.context import Context
from pipeline.serving.decoding import Asked, failed
from pipeline.serving.errors import ApiError
from pipeline.serving.gate import Facts, cut, respond
from pipeline.serving.inbox import Inbox
from pipeline.serving.models import Loaded, Slot

_NO_LIMIT = 1 << 30
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class _GoneError(Exception):
    """The client has closed the connection."""


@dataclass(frozen=True)
class Question:
    """A checked request for texts."""

    identity: str
    slot: Slot
    loaded: Loaded
    asked: Sequence[Asked]
    stops: Sequence[str]
    form: Form
    stream: bool
    with_usage: bool
    logprobs: bool
    texts: Sequence[str | Sequence[Mapping[str, Any]]]
    """Of each prompt the text or the messages, for its record."""
    settings: Mapping[str, Any]
    user: str
    """Pseudonym."""
    store: bool
    """Consent to be kept."""


class Generation:
    """An ASGI response."""

    def __init__(self, context: Context, question: Question) -> None:
        self._context, self._question = context, question

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Computes the answers and sends them. A client that has gone frees its rows within a step."""
        question, context = self._question, self._context
        assert question.loaded.engine is not None
        count = sum(one.samples for one in question.asked)

        def overflow() -> None:
            context.metrics.cut.labels("slow reader").inc()
            inbox.fail(_GoneError())
            cut(scope)

        unread = context.settings.limits.unread_pieces * count if question.stream else _NO_LIMIT
        inbox = Inbox(context.decoder.cancel, unread, overflow)
        task = question.loaded.task
        answers = Answers(inbox, [Answer(AnswerText(task, question.stops)) for _ in range(count)])
        context.decoder.begin(question.loaded.engine, question.asked, inbox)
        watcher = asyncio.create_task(_watch(receive, inbox))
        try:
            await (self._streamed(answers, send) if question.stream else self._whole(answers, send))
        except _GoneError:
            pass
        finally:
            watcher.cancel()
            inbox.close()
            self._count(answers, scope["state"]["facts"])

    async def _whole(self, answers: Answers, send: Send) -> None:
        async for _ in answers.pieces():
            pass
        if self._question.store:
            await self._keep(answers)
        whole = self._question.form.whole(answers.answers, self._usage(answers))
        await respond(
            send, 200, json.dumps(whole, ensure_ascii=False).encode(), {"x-request-id": self._question.identity}
        )

    async def _streamed(self, answers: Answers, send: Send) -> None:
        """Sends events; an error after the first is an event too."""
        started = False
        body = b""
        try:
            async for events in self._stream(answers):
                if not started:
                    started = True
                    headers = [*_EVENTS, (b"x-request-id", self._question.identity.encode())]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                if events:
                    await send({"type": "http.response.body", "body": events.encode(), "more_body": True})
            body = DONE
        except Exception as error:
            if not started or isinstance(error, _GoneError):
                raise
            body = b"data: " + _api_error(error).body + b"\n\n"
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, answers: Answers) -> AsyncIterator[str]:
        """The events of every step; the ends of answers with consent come after they are kept."""
        opened: set[int] = set()
        endings: list[str] = []
        async for pieces in answers.pieces():
            yield "".join(self._events(pieces, answers, opened, endings))
        if self._question.store:
            await self._keep(answers)
        if self._question.with_usage:
            endings.append(self._question.form.usage(self._usage(answers)))
        yield "".join(endings)

    def _events(self, pieces: Sequence[Piece], answers: Answers, opened: set[int], endings: list[str]) -> list[str]:
        """The events of new text; those of ends wait in `endings` until a request with consent is kept."""
        form, events = self._question.form, []
        for piece in pieces:
            if piece.number not in opened:
                opened.add(piece.number)
                events.append(form.opening(piece.number))
            answer = answers.answers[piece.number]
            if piece.text or (self._question.logprobs and piece.end > piece.first):
                events.append(form.piece(piece, answer))
            if piece.finish:
                (endings if self._question.store else events).append(form.ending(piece.number, piece.finish))
        return events

    def _usage(self, answers: Answers) -> dict[str, int]:
        prompts = sum(len(one.prompt) for one in self._question.asked)
        return {
            "prompt_tokens": prompts,
            "completion_tokens": answers.tokens,
            "total_tokens": prompts + answers.tokens,
        }

    async def _keep(self, answers: Answers) -> None:
        """Puts the request into the journal, one entry per prompt: the first has the request's id."""
        for entry in self._entries(answers):
            await self._context.records.keep_request(entry)

    def _entries(self, answers: Answers) -> list[dict[str, Any]]:
        question, entries, first = self._question, [], 0
        for place, (asked, text) in enumerate(zip(question.asked, question.texts, strict=True)):
            part = answers.answers[first : first + asked.samples]
            first += asked.samples
            entries.append(
                {
                    "id": self._identity(place),
                    "model": question.loaded.folder.name,
                    "version": question.loaded.version,
                    "model_sha256": question.loaded.sha256,
                    "task": question.loaded.task.spec.name,
                    "user": question.user,
                    "consent": "store",
                    "settings": dict(question.settings),
                    ("text" if isinstance(text, str) else "messages"): text,
                    "prompt_ids": list(asked.prompt),
                    "answers": [
                        {
                            "text": answer.said,
                            "ids": answer.ids,
                            "logprobs": [round(finite(value), 6) for value in answer.logprobs],
                            "finish": answer.finish,
                        }
                        for answer in part
                    ],
                }
            )
        return entries

    def _identity(self, place: int) -> str:
        """The id of a prompt's record."""
        if place == 0:
            return self._question.identity
        head = self._question.identity
        return f"{head[:-4]}{(int(head[-4:], 16) + place) % 65536:04x}"

    def _count(self, answers: Answers, facts: Facts) -> None:
        """Figures and observations, whether the request was answered or not."""
        question, metrics, first = self._question, self._context.metrics, 0
        facts.tokens = answers.tokens
        name = question.slot.name
        metrics.tokens.labels(name, "answer").inc(answers.tokens)
        metrics.tokens.labels(name, "prompt").inc(sum(len(one.prompt) for one in question.asked))
        if answers.first_token is not None:
            metrics.first_token.labels(name).observe(answers.first_token)
        for place, (asked, text) in enumerate(zip(question.asked, question.texts, strict=True)):
            part = answers.answers[first : first + asked.samples]
            first += asked.samples
            known = [finite(value) for answer in part for value in answer.logprobs]
            self._context.records.observe(
                self._identity(place), question.slot, question.loaded, text, answer_tokens=len(known),
                answer_nats=-sum(known) / len(known) if known else None,
            )  # fmt: skip


def _api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return ApiError(400, str(error)) if isinstance(error, UserError) else failed(error)


async def _watch(receive: Receive, inbox: Inbox) -> None:
    """Ends the answers of a client that closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.fail(_GoneError())
    inbox.close()
