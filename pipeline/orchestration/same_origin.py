"""An ASGI middleware against cross-origin requests: only its own pages, and clients with the password, are served.

A page of any web site can send requests to 127.0.0.1 from its visitor's browser, with the credentials that the browser
keeps for that address. Three checks come before the application:
  - `Host` is this address: else a name that an attacker points here (DNS rebinding) would count as the same origin;
  - `Origin`, and `Sec-Fetch-Site`, which browsers set, is this address or missing: no other site's page,
    form, image or WebSocket; following a link to here is allowed;
  - `Authorization` holds the secret, where one is given (HTTP Basic, RFC 7617).
Sources: Fetch standard (Origin), W3C Fetch Metadata; OWASP on cross-site request forgery.
"""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ADDED = [
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]


class SameOrigin:
    """The application behind the checks. `secret`: `user:password`; none where the application checks it itself."""

    def __init__(self, app: App, secret: str | None = None, hint: str = "") -> None:
        """`hint`: the place of the secret, for the answer to a request without it."""
        self._app, self._secret, self._hint = app, secret, hint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        status, reason = refusal(scope, self._secret)
        if status == 307:
            await _redirect(scope, send, reason)
            return
        if status:
            await _refuse(scope, send, status, f"{reason}{self._hint if status == 401 else ''}\n")
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_ADDED]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def refusal(scope: Scope, secret: str | None) -> tuple[int, str]:
    """Status and reason for which a request is refused; (0, "") if it is not; 307 and an address to go on to."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.lower(), []).append(value)
    port = scope["server"][1]
    hosts = headers.get(b"host", [])
    if len(hosts) != 1 or hosts[0] not in {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}:
        through = f"ssh -L {port}:127.0.0.1:{port}"
        return 403, f"refused: this server is 127.0.0.1:{port} and answers to no other name; from afar: {through}"
    navigates = scope.get("method") == "GET" and headers.get(b"sec-fetch-mode") == [b"navigate"]
    if navigates and hosts[0].startswith(b"localhost"):
        return 307, f"http://127.0.0.1:{port}"  # one origin: pages of Prefect always request 127.0.0.1
    if any(origin != b"http://" + hosts[0] for origin in headers.get(b"origin", [])):
        return 403, "refused: the request comes from a page of another origin"
    for site in headers.get(b"sec-fetch-site", []):
        if site not in (b"same-origin", b"none") and not (
            navigates and headers.get(b"sec-fetch-dest") == [b"document"]
        ):
            return 403, "refused: the request comes from a page of another site"
    if secret is not None and not _authorized(headers.get(b"authorization", []), secret):
        return 401, "refused: user and password are needed"
    return 0, ""


def _authorized(values: list[bytes], secret: str) -> bool:
    if len(values) != 1:
        return False
    scheme, _, credentials = values[0].partition(b" ")
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True)
    except (ValueError, binascii.Error):
        return False
    return scheme.lower() == b"basic" and hmac.compare_digest(decoded, secret.encode())


async def _redirect(scope: Scope, send: Send, base: str) -> None:
    query = scope.get("query_string", b"")
    place = base.encode() + quote(scope["path"]).encode() + (b"?" + query if query else b"")
    await send({"type": "http.response.start", "status": 307, "headers": [(b"location", place), *_ADDED]})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *_ADDED]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="tohum", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
