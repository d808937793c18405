"""The thread that computes: decoding engines step by step, and scores of texts between two steps.

Only this thread touches a network. The event loop hands it work through a queue and gets tokens back in one call per
step, so a step of 32 answers costs one wake-up. An engine is known here as long as it has answers in progress: new
weights come with an engine of their own, and the old one is dropped after its last answer.
"""

import asyncio
import contextlib
import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pipeline.errors import UserError
from pipeline.inference.engine import Engine, RowSettings, Token
from pipeline.serving.errors import ApiError, busy
from pipeline.serving.inbox import Inbox

_LOG = logging.getLogger("tohum.serving")
_AHEAD = 2
"""Steps that may be computed before their tokens are delivered: the thread would else keep the interpreter's lock from
the event loop, and answers would come in bursts."""
Result = TypeVar("Result")


class Scorer(Protocol):
    """Scores of texts; equal objects are computed together."""

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """One result per input."""
        ...


@dataclass(eq=False)
class Asked:
    """Answers that a request asks of one engine."""

    prompt: Sequence[int]
    settings: RowSettings
    samples: int


@dataclass(eq=False)
class _Begin:
    engine: Engine
    asked: Sequence[Asked]
    inbox: Inbox


@dataclass(eq=False)
class _End:
    inbox: Inbox
    number: int | None
    """Of the answer; None: all."""


@dataclass(eq=False)
class _Score:
    scorer: Scorer
    inputs: Sequence[Any]
    result: "Future[Sequence[Any]]"


@dataclass(eq=False)
class _Rows:
    """An engine's rows in progress."""

    inboxes: dict[int, tuple[Inbox, int]] = field(default_factory=dict)
    """Row -> inbox and number of the answer."""


class Decoder:
    """The thread with its queue. One event loop uses it."""

    def __init__(self, threads: int, most_rows: int, most_waiting: int) -> None:
        """A thread that is not started yet.

        Args:
            threads: of torch.
            most_rows: answers that an engine computes together.
            most_waiting: answers that may wait beyond those.
        """
        self._threads, self._most = threads, most_rows + most_waiting
        self._queue: deque[_Begin | _Score | _End] = deque()
        self._wake = threading.Condition()
        self._stopped = False
        self.failed = False
        """Whether the thread has ended by an error of its own; it answers nothing any more."""
        self._ahead = threading.Semaphore(_AHEAD)
        self._rows: dict[Engine, _Rows] = {}
        self._open: dict[int, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)

    def start(self) -> None:
        """Starts the thread for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its present step."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        self._thread.join(timeout=10)

    @property
    def answers(self) -> int:
        """Answers in progress or waiting."""
        return sum(self._open.values())

    def begin(self, engine: Engine, asked: Sequence[Asked], inbox: Inbox) -> None:
        """Starts answers; `inbox` gets their tokens, numbered in the order of `asked`, samples of one in a row.

        Raises:
            ApiError: 429, too many answers wait; 503, the thread has failed.
        """
        self._require_running()
        answers = sum(one.samples for one in asked)
        waiting = self._open.get(id(engine), 0)
        if waiting + answers > self._most:
            raise busy(f"{waiting} answers are computed or wait already; try again later")
        self._count(engine, answers)
        self._put(_Begin(engine, asked, inbox))

    async def score(self, scorer: Scorer, inputs: Sequence[Any]) -> Sequence[Any]:
        """The scorer's results; inputs of requests that wait together are computed together. Raises as `begin`."""
        self._require_running()
        if len(self._queue) >= self._most:
            raise busy(f"{len(self._queue)} requests wait already; try again later")
        result: Future[Sequence[Any]] = Future()
        self._put(_Score(scorer, inputs, result))
        return await asyncio.wrap_future(result)

    def cancel(self, inbox: Inbox, number: int | None) -> None:
        """Ends one answer of an inbox, or all (None)."""
        self._put(_End(inbox, number))

    def _require_running(self) -> None:
        if self.failed:
            raise ApiError(503, "the decoding thread has failed; the server has to be started again")

    def _put(self, item: "_Begin | _Score | _End") -> None:
        with self._wake:
            self._queue.append(item)
            self._wake.notify()

    def _count(self, engine: Engine, change: int) -> None:
        """Counts answers in progress, in the event loop."""
        left = self._open.get(id(engine), 0) + change
        if left:
            self._open[id(engine)] = left
        else:
            self._open.pop(id(engine), None)

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.failed = True
            failed(error)

    def _work(self) -> None:
        import torch

        torch.set_num_threads(self._threads)
        while True:
            with self._wake:
                while not (self._queue or self._rows or self._stopped):
                    self._wake.wait()
                if self._stopped:
                    return
                items = list(self._queue)
                self._queue.clear()
            self._handle(items)
            for engine in list(self._rows):
                self._step(engine)

    def _handle(self, items: "Sequence[_Begin | _Score | _End]") -> None:
        scores: dict[Scorer, list[_Score]] = {}
        for item in items:
            if isinstance(item, _Score):
                scores.setdefault(item.scorer, []).append(item)
            elif isinstance(item, _Begin):
                self._add(item)
            else:
                self._remove(item)
        for scorer, together in scores.items():
            _scored(scorer, together)

    def _add(self, begin: _Begin) -> None:
        rows, number = self._rows.setdefault(begin.engine, _Rows()), 0
        added: list[int] = []
        try:
            for asked in begin.asked:
                for row in begin.engine.add(asked.prompt, asked.settings, samples=asked.samples):
                    rows.inboxes[row] = (begin.inbox, number)
                    added.append(row)
                    number += 1
        except Exception as error:
            for row in added:
                begin.engine.cancel(row)
                del rows.inboxes[row]
            total = sum(asked.samples for asked in begin.asked)
            reason = error if isinstance(error, UserError) else failed(error)
            self._call(lambda: self._fail(begin.engine, total, [begin.inbox], reason))
        if not rows.inboxes:
            self._rows.pop(begin.engine, None)

    def _remove(self, end: _End) -> None:
        for engine, rows in list(self._rows.items()):
            ended = [
                row
                for row, (owner, number) in rows.inboxes.items()
                if owner is end.inbox and end.number in (None, number)
            ]
            for row in ended:
                engine.cancel(row)
                del rows.inboxes[row]
            if ended:
                self._call(lambda engine=engine, ended=ended: self._count(engine, -len(ended)))  # type: ignore[misc]
            if not rows.inboxes:
                del self._rows[engine]

    def _step(self, engine: Engine) -> None:
        rows = self._rows[engine].inboxes
        try:
            tokens = engine.step()
        except Exception as error:
            self._give_up(engine, failed(error))
            return
        arrived: list[tuple[Inbox, int, Token]] = []
        finished = 0
        for token in tokens:
            owner = rows.get(token.row)
            if owner is None:
                continue
            arrived.append((*owner, token))
            if token.finished:
                del rows[token.row]
                finished += 1
        if arrived:
            while not self._ahead.acquire(timeout=1) and not self._stopped:
                pass
            self._call(lambda: self._deliver(engine, arrived, finished))
        if not rows:
            del self._rows[engine]

    def _give_up(self, engine: Engine, error: ApiError) -> None:
        """Ends all answers of an engine that failed."""
        inboxes = self._rows.pop(engine).inboxes
        for row in inboxes:
            with contextlib.suppress(Exception):
                engine.cancel(row)
        owners = list({id(inbox): inbox for inbox, _ in inboxes.values()}.values())
        self._call(lambda: self._fail(engine, len(inboxes), owners, error))

    def _fail(self, engine: Engine, answers: int, inboxes: Sequence[Inbox], error: Exception) -> None:
        """In the event loop."""
        self._count(engine, -answers)
        for inbox in inboxes:
            inbox.fail(error)

    def _deliver(self, engine: Engine, arrived: Sequence[tuple[Inbox, int, Token]], finished: int) -> None:
        self._ahead.release()
        if finished:
            self._count(engine, -finished)
        for inbox, number, token in arrived:
            inbox.put(number, token)

    def _call(self, function: Callable[[], Any]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function)


def _scored(scorer: Scorer, together: Sequence[_Score]) -> None:
    """Computes the inputs of several requests together and hands each its part."""
    running = [one for one in together if one.result.set_running_or_notify_cancel()]
    if not running:
        return
    try:
        results = list(scorer([item for one in running for item in one.inputs]))
    except Exception as error:
        for one in running:
            one.result.set_exception(error if isinstance(error, UserError) else failed(error))
        return
    for one in running:
        one.result.set_result(results[: len(one.inputs)])
        results = results[len(one.inputs) :]


def failed(error: BaseException) -> ApiError:
    """An error 500; the log has its type and place, but not its message, which may hold text of a request."""
    frames = traceback.extract_tb(error.__traceback__)
    place = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-4:]))
    _LOG.error("%s at %s", type(error).__name__, place or "an unknown place")
    return ApiError(500, f"the server failed ({type(error).__name__}); its log names the place")
