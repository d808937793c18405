"""The checks before any endpoint, as an ASGI middleware: address, origin, key, rate, size, time; and the access log.

A line of the log has method, path, status, milliseconds, tokens and the key's name, never text of a request: a path
that is none of the server's is logged as `-`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from pipeline.config.serving import Serving
from pipeline.data.pseudonyms import NOBODY
from pipeline.errors import UserError
from pipeline.orchestration.same_origin import App, Message, Receive, Scope, Send, refusal
from pipeline.serving.decoding import failed
from pipeline.serving.errors import ApiError
from pipeline.serving.keys import Keys, Rate
from pipeline.serving.metrics import Metrics

_LOG = logging.getLogger("tohum.serving.access")
LOOPBACK = ("127.0.0.1", "localhost")
"""Owner of a request where no keys are used."""
_OPEN = ("/", "/health")
_ALWAYS = ("/health", "/metrics")
_PAGE = "/page/"
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass
class Facts:
    """What the log says of a request; endpoints add to it. In `scope["state"]["facts"]`."""

    owner: str = NOBODY
    tokens: int = 0


class Gate:
    """The application behind the checks.

    Attributes:
        draining: whether new requests are refused, because the server ends.
        active: requests in progress.
    """

    def __init__(self, app: App, settings: Serving, keys: Keys, metrics: Metrics, paths: Callable[[str], bool]) -> None:
        """`paths`: whether a path is the server's."""
        self._app, self._settings, self._keys, self._metrics, self._paths = app, settings, keys, metrics, paths
        self._rate = Rate(settings.limits.requests_per_minute)
        self.draining = False
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        if scope["type"] != "http":
            return
        began, facts = time.perf_counter(), Facts()
        sent = _Sent(send)
        scope.setdefault("state", {})["facts"] = facts
        self.active += 1
        try:
            await self._answer(scope, receive, sent, facts)
        finally:
            self.active -= 1
            self._log(scope, sent.status, time.perf_counter() - began, facts)

    async def _answer(self, scope: Scope, receive: Receive, sent: "_Sent", facts: Facts) -> None:
        try:
            async with asyncio.timeout(self._settings.limits.seconds):
                await self._checked(scope, receive, sent, facts)
            return
        except ApiError as refused:
            error = refused
        except UserError as refused:
            error = ApiError(400, str(refused))
        except TimeoutError:
            self._metrics.cut.labels("time").inc()
            error = ApiError(504, f"the request took more than {self._settings.limits.seconds:g} s", code="timeout")
        except Exception as unexpected:
            error = failed(unexpected)
        if sent.status:
            cut(scope)
            return
        await respond(sent, error.status, error.body, error.headers)

    async def _checked(self, scope: Scope, receive: Receive, sent: "_Sent", facts: Facts) -> None:
        headers = _headers(scope)
        if (place := self._refused_origin(scope, headers)) is not None:
            await respond(sent, 307, b"", {"location": place})
            return
        path, method = scope["path"], scope["method"]
        if path not in _OPEN and not path.startswith(_PAGE):
            facts.owner = self._owner(headers)
        if self.draining and path not in _ALWAYS:
            raise ApiError(503, "the server ends; it takes no more requests", headers={"retry-after": "5"})
        if method == "POST":
            self._rate.take(facts.owner)
            self._require_small(headers)
        await self._app(scope, receive, sent)

    def _refused_origin(self, scope: Scope, headers: Mapping[bytes, list[bytes]]) -> str | None:
        """Raises ApiError 403 for a request to another name or from another site; an address to go on to, if any."""
        if self._settings.host in LOOPBACK:
            status, reason = refusal(scope, None)
            if status == 307:
                return f"{reason}{quote(scope['path'])}"
            if status:
                raise ApiError(status, reason)
            return None
        hosts = [host.decode("latin-1") for host in headers.get(b"host", [])]
        names = {*self._settings.names, f"{self._settings.host}:{scope['server'][1]}"}
        if len(hosts) != 1 or hosts[0] not in names:
            raise ApiError(
                403, "refused: the request is for another name; serving.names of params.yaml lists its names"
            )
        origins = [urlsplit(value.decode("latin-1")).netloc for value in headers.get(b"origin", [])]
        sites = headers.get(b"sec-fetch-site", [])
        if any(origin != hosts[0] for origin in origins) or any(
            site not in (b"same-origin", b"none") for site in sites
        ):
            raise ApiError(403, "refused: the request comes from a page of another origin")
        return None

    def _owner(self, headers: Mapping[bytes, list[bytes]]) -> str:
        """The name of the request's key. Raises ApiError 401 without a valid one, where keys are used."""
        if not self._keys_needed():
            if self._settings.host not in LOOPBACK:  # the last key was revoked
                raise ApiError(401, "the server has no key any more; ask its operator for one")
            return NOBODY
        values = headers.get(b"authorization", [])
        scheme, _, key = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        owner = self._keys.owner(key.strip().decode("latin-1")) if scheme.lower() == b"bearer" else None
        if owner is None:
            raise ApiError(
                401, "a valid API key is needed, as `Authorization: Bearer KEY`; ask the server's operator for one",
                code="invalid_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        return owner

    def _keys_needed(self) -> bool:
        """Whether requests need a key. Raises ApiError 503 for a damaged file, whose place is for the operator only."""
        try:
            return self._keys.needed
        except UserError as error:
            _LOG.error("%s", error)
            raise ApiError(503, "the server's keys cannot be read; ask its operator", code="keys_damaged") from None

    def _require_small(self, headers: Mapping[bytes, list[bytes]]) -> None:
        lengths = headers.get(b"content-length", [])
        most = self._settings.limits.body_bytes
        if lengths and int(lengths[0]) > most:
            raise too_large(most)

    def _log(self, scope: Scope, status: int, seconds: float, facts: Facts) -> None:
        path = scope["path"] if self._paths(scope["path"]) else "-"
        self._metrics.requests.labels(path, str(status or "cut")).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        _LOG.info(
            "%s %s %s %.0fms %d tokens %s", _method(scope["method"]), path, status or "cut", seconds * 1000,
            facts.tokens, facts.owner,
        )  # fmt: skip


class _Sent:
    """The connection's `send`, which adds headers and remembers the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name for name, _ in message.get("headers", [])}
            message["headers"] = [
                *message.get("headers", []),
                *((name, value) for name, value in _HEADERS if name not in given),
            ]
        await self._send(message)


async def respond(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """A JSON response that ends the connection where the request's body may not have been read."""
    pairs = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    if status >= 400:
        pairs["connection"] = "close"
    encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        ApiError: 413, it is longer than `most` bytes; 400, the client ended before it.
    """
    parts, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ApiError(400, "the connection ended before the body")
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > most:
            raise too_large(most)
        more = message.get("more_body", False)
    return b"".join(parts)


def too_large(most: int) -> ApiError:
    """An error 413."""
    return ApiError(413, f"the body is longer than {most} bytes; serving.limits.body_bytes of params.yaml is the limit")


def cut(scope: Scope) -> None:
    """Closes the connection of a request at once, with what its client has not read."""
    if transport := scope.get("tohum.transport"):
        transport.abort()


def _headers(scope: Scope) -> dict[bytes, list[bytes]]:
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.lower(), []).append(value)
    return headers


def _method(method: str) -> str:
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else "-"
