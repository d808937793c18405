"""The process of `tohum serve`: uvicorn with connections that can be cut, the watch over the registry, and the drain.

SIGTERM (or Ctrl-C) ends it in order: running answers are finished, new requests are answered 503; a second one ends it
at once.
"""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.config.params import Params
from pipeline.config.serving import Serving
from pipeline.errors import UserError
from pipeline.model.device import set_up
from pipeline.orchestration.same_origin import App as Asgi
from pipeline.orchestration.same_origin import Receive, Scope, Send
from pipeline.paths import PARAMS
from pipeline.serving.app import App
from pipeline.serving.context import Context
from pipeline.serving.decoding import Decoder, failed
from pipeline.serving.gate import LOOPBACK, Gate
from pipeline.serving.keys import Keys
from pipeline.serving.metrics import Metrics
from pipeline.serving.models import Shelf
from pipeline.serving.records import Records
from pipeline.tracking.start_sender import deliver_journal

_LOG = logging.getLogger("tohum.serving")
_HEADER_SECONDS = 10.0  # for the head of a request, after which a connection without one is closed
_UNREAD_BYTES = 16 << 10
"""Bytes of an answer in the process that its reader has not taken; with more, sending waits and pieces pile up."""
_KERNEL_BYTES = 64 << 10  # bytes of an answer in the kernel, which doubles the number


class Connection(H11Protocol):
    """uvicorn's protocol with a time limit for the head of a request, and access to the transport."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._inner, self.app = self.app, self._with_transport
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Limits the bytes that wait for a slow reader."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_UNREAD_BYTES)
        if (own := transport.get_extra_info("socket")) is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Starts or ends the time of a head."""
        super().data_received(data)
        self._await_head()

    def handle_events(self) -> None:
        """A client that breaks the protocol after its answer began loses the connection."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Ends an idle connection, also one whose client has not read its answer."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_HEADER_SECONDS, self.transport.abort)

    def _await_head(self) -> None:
        waits = self.conn.their_state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if not waits:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEADER_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    async def _with_transport(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["tohum.transport"] = self.transport
        await self._inner(scope, receive, send)


class Server(uvicorn.Server):
    """A whole server of loaded models, with a drain.

    Attributes:
        shelf, gate, decoder, records, metrics: its parts.
    """

    def __init__(self, shelf: Shelf, settings: Serving, keys: Keys, deliver: Callable[[], None] | None = None) -> None:
        """Prepares the parts.

        Args:
            shelf: the loaded models.
            settings: section `serving` of params.yaml.
            keys: of those who may ask.
            deliver: starts the delivery of the journal to MLflow where entries wait; called at every poll;
                None: it stays here.

        Raises:
            UserError: a journal that cannot be written.
        """
        self.shelf, self.metrics, self._deliver = shelf, Metrics(), deliver
        self.records = Records(settings, self.metrics)
        self.records.refresh(list(shelf.slots.values()))
        limits = settings.limits
        self.decoder = Decoder(settings.threads, limits.rows, limits.queue)
        app = App(Context(settings, shelf, self.decoder, self.records, self.metrics), lambda: self.gate.draining)
        self.gate = Gate(app, settings, keys, self.metrics, app.knows)
        config = uvicorn.Config(
            _with_lifespan(self.gate, self._background(settings.poll_seconds)), http=Connection, ws="none",
            lifespan="on", log_config=None, access_log=False, proxy_headers=False, server_header=False,
            date_header=False, limit_concurrency=limits.connections, timeout_keep_alive=60,
        )  # fmt: skip
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """The first signal begins the drain, the second ends the server."""
        if self.gate.draining:
            self.force_exit = self.should_exit = True
            return
        self.gate.draining = True
        print("finishing the running answers; a second signal ends at once", file=sys.stderr, flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Ends the drain with the last answer; uvicorn calls it ten times a second."""
        if self.gate.draining and not self.gate.active:
            self.should_exit = True
        return await super().on_tick(counter)

    @contextlib.asynccontextmanager
    async def _background(self, poll_seconds: float) -> AsyncIterator[None]:
        """The decoding thread and the watch over the registry, while the server runs."""
        self.decoder.start()
        watch = asyncio.create_task(self._poll(poll_seconds))
        try:
            yield
        finally:
            watch.cancel()
            self.decoder.stop()
            self.records.close()

    async def _poll(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                if self.shelf.watched:
                    await asyncio.to_thread(self.shelf.look, lambda slot: self.metrics.swaps.labels(slot.name).inc())
                await asyncio.to_thread(self.records.refresh, list(self.shelf.slots.values()))
                if self._deliver is not None:
                    await asyncio.to_thread(self._deliver)
            except Exception as error:
                failed(error)


def serve(names: Sequence[str], params: Params) -> None:
    """Serves until a signal ends it.

    Args:
        names: models as on the command line; none: every champion.
        params: of the project.

    Raises:
        UserError: a model that cannot be served, a port that is taken, or a host other than 127.0.0.1 without a key.
    """
    settings = params.serving
    keys = Keys(Path(settings.keys).expanduser())
    if settings.host not in LOOPBACK and not keys.needed:
        raise UserError(
            f"{PARAMS}: serving.host is {settings.host}, and {settings.keys} holds no key; make one first: "
            "tohum serve --new-key NAME"
        )
    _log_to_stderr()
    with contextlib.closing(listen(settings.host, settings.port)) as listener:
        plain = {"device": "cpu", "threads": settings.threads, "precision": "float32", "compile": False}
        shelf = Shelf(names, params, str(set_up(params.compute.model_copy(update=plain))))
        tracking = params.runtime.tracking
        deliver = partial(deliver_journal, tracking.uri, tracking.experiment) if tracking.enabled else None
        server = Server(shelf, settings, keys, deliver)
        _announce(listener, shelf, keys)
        server.run(sockets=[listener])


def _with_lifespan(app: Gate, background: contextlib.AbstractAsyncContextManager[None]) -> Asgi:
    """The application with ASGI's lifespan protocol around the background work."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        async with background:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return run


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError where the port is taken or the address is none of this computer's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UserError(
            f"port {port} of {host}: {error.strerror}; stop the program that listens there, or set serving.port"
        ) from None
    listener.set_inheritable(True)
    return listener


def _announce(listener: socket.socket, shelf: Shelf, keys: Keys) -> None:
    host, port = listener.getsockname()[:2]
    print(f"http://{host}:{port}/v1, {'with a key' if keys.needed else 'without keys'}", flush=True)
    for slot in shelf.slots.values():
        assert slot.loaded is not None
        said = {"champion": "champion", "not the champion": "not the champion", "unreviewed": "not reviewed"}
        version = f"version {slot.loaded.version}, " if slot.loaded.version else ""
        print(f"  {slot.name}: {slot.asked}, {version}{said[slot.loaded.standing]}", flush=True)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("tohum.serving")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
