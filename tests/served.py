"""A server of tiny models in a thread of the test's process, and raw connections to it."""

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.config.serving import Serving
from pipeline.serving.keys import Keys
from pipeline.serving.models import Loaded, Shelf
from pipeline.serving.server import Server, listen
from tests.registries import make_model, params

MESSAGES = [{"role": "user", "content": "Merhaba"}]
MODELS = ("chat-full", "spam-full", "base")


def settings(folder: Path, **changes: Any) -> Serving:
    """Settings of a server on a free port, with room for tests; `changes` by name, those of limits too."""
    fields = params().serving.model_dump()
    fields |= {"port": 0, "keys": str(folder / "keys.json"), "poll_seconds": 0.1}
    fields["limits"] |= {"body_bytes": 50_000, "requests_per_minute": None}
    for name, value in changes.items():
        (fields["limits"] if name in fields["limits"] else fields)[name] = value
    return Serving.model_validate(fields)


class Site:
    """A running server.

    Attributes:
        server: its parts.
        port: of 127.0.0.1.
    """

    def __init__(self, server: Server, listener: socket.socket) -> None:
        self.server = server
        self.port: int = listener.getsockname()[1]
        self.thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, **options: int) -> socket.socket:
        """A raw connection; `options` of the socket by name."""
        connection = socket.socket()
        connection.settimeout(20)
        for name, value in options.items():
            connection.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def raw(self, data: bytes, half_close: bool = False) -> bytes:
        """Everything that the server answers to these bytes until it ends the connection."""
        with self.connect() as connection:
            with contextlib.suppress(OSError):  # it may answer and end the connection before all is sent
                connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            return received(connection)


def received(connection: socket.socket) -> bytes:
    """All bytes until the connection ends."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def site(folder: Path, models: tuple[str, ...] = MODELS, **changes: Any) -> Iterator[Site]:
    """A server of these models in a project of its own."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        for name in models:
            if not (Path("models") / name).is_dir():
                make_model(name)
        chosen = settings(folder, **changes)
        shelf = Shelf(models, params().model_copy(update={"serving": chosen}), "cpu")
        server = Server(shelf, chosen, Keys(Path(chosen.keys)))
    finally:
        os.chdir(before)
    with serving(server) as running:
        yield running


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Site]:
    """Runs a server in a thread."""
    listener = listen("127.0.0.1", 0)
    running = Site(server, listener)
    try:
        yield running
    finally:
        server.should_exit = True
        running.thread.join(timeout=20)
        listener.close()


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "chat-full", "messages": MESSAGES} | changes


def request(site: Site, **changes: Any) -> bytes:
    """A request for a chat, as bytes."""
    data = json.dumps(body(**changes)).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: 127.0.0.1:{site.port}", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition, a minute at most: a busy machine delays it, and no test measures the delay."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(what)


class SlowEngine:
    """An engine that gives its first token and then waits until the test lets it go on."""

    def __init__(self, loaded: Loaded) -> None:
        self._engine = loaded.engine
        self.steps = 0
        self.goes_on = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> Any:
        if self.steps and not self.goes_on:
            time.sleep(0.001)
            return []
        self.steps += 1
        assert self._engine is not None
        return self._engine.step()
