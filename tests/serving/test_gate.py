"""The checks before any endpoint: hostile requests, keys, names and origins, rates; and what the log says."""

import asyncio
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.errors import UserError
from pipeline.serving import server
from pipeline.serving.errors import ApiError
from pipeline.serving.gate import Gate, respond
from pipeline.serving.keys import Keys, Rate
from pipeline.serving.metrics import Metrics
from tests.served import Site, received, settings
from tests.served import site as running

POSTS = (
    "/v1/chat/completions", "/v1/completions", "/v1/classify", "/v1/embeddings", "/v1/ratings", "/v1/labels",
    "/v1/forget",
)  # fmt: skip
VALID = b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"max_tokens":1}'
ODD = [
    b"", b"null", b"[]", b"{}", b"1e999", b'{"model":', b'{"model":"chat-full"}', b"\x00" * 100, b"\xff\xfe{}",
    b'{"model":"chat-full","messages":[{"role":"user","content":"\xc3\x28"}]}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"\\ud800"}]}',
    b'{"model":"\\udfff"}', b"[" * 40_000, b'{"a":' * 8_000, b'{"messages":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    b'{"model":"chat-full","n":' + b"9" * 5_000 + b"}", b'{"model":"chat-full","messages":[{"role":"user"}]}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"temperature":-1}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"max_tokens":-5}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"max_tokens":1e400}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"seed":1e30}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"n":1000000000}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"logit_bias":{"99999999":1}}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"logit_bias":{"\xc2\xb2":1}}',
    b'{"model":"chat-full","messages":{"role":"user","content":"x"}}', b'{"model":7,"messages":[]}',
    b'{"model":"chat-full","messages":[{"role":["user"],"content":{"a":1}}]}',
    b'{"model":"chat-full","messages":[{"role":"tool","content":"x","tool_call_id":"1"}]}',
    b'{"model":"../../etc/passwd","messages":[{"role":"user","content":"x"}]}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"stop":["a","b","c","d","e"]}',
    b'{"model":"chat-full","messages":[{"role":"user","content":"x"}],"__proto__":{}}',
    b'{"model":"base","prompt":[1,2,3]}', b'{"model":"base","prompt":[]}', b'{"model":"base","prompt":{"a":1}}',
    b'{"model":"spam-full","input":[null]}', b'{"model":"spam-full","input":[]}', b'{"model":"spam-full","input":{}}',
    b'{"request":"req-../../x","form":"thumb","value":"up"}', b'{"request":"req-' + b"0" * 32 + b'","form":"thumb"}',
    b'{"user":""}', b'{"user":[]}', b"x" * 60_000,
]  # fmt: skip


def posted(site: Site, path: str, data: bytes, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{site.port}", f"Content-Length: {len(data)}", *more]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def mutated(site: Site) -> list[bytes]:
    """Requests whose bytes were changed at random places, a fixed draw."""
    draw, made = random.Random(1), []
    for _ in range(60):
        data = bytearray(posted(site, "/v1/chat/completions", VALID, "Connection: close"))
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(data))
            data[place : place + draw.randint(0, 2)] = bytes(draw.randrange(256) for _ in range(draw.randint(0, 3)))
        made.append(bytes(data))
    return made


def broken(site: Site) -> list[bytes]:
    """Requests that break HTTP."""
    host = f"Host: 127.0.0.1:{site.port}\r\n".encode()
    start = b"POST /v1/chat/completions HTTP/1.1\r\n" + host
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    return [
        b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"".join(b"X-%d: y\r\n" % i for i in range(20_000)) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + host + b"\r\n",
        b"GET /v1/models/%2e%2e%2f%2e%2e HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        b"GET /page/../../app.py HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        b"GET /page/%2e%2e%2fapp.py HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        b"GET /page/%00 HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        b"DELETE /v1/models/base HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n",
        b"TRACE / HTTP/1.1\r\n" + host + b"Connection: close\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"Connection: upgrade, close\r\nUpgrade: websocket\r\n\r\n",
        start + b"Content-Length: -5\r\n\r\n", start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        start + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n", start + b"Content-Length: 99999999999\r\n\r\n",
        start + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        chunked + b"zz\r\n", chunked + b"-1\r\n", chunked + b"fffffffffffffffffffff\r\n", chunked + b"5\r\nabc",
        chunked + b"ffff\r\n" + b"a" * 65_535 + b"\r\n0\r\n\r\n", chunked + b"1;" + b"x" * 100_000,
        start + b"Expect: 100-continue\r\nContent-Length: 9999999\r\n\r\n",
        start + b"Content-Length: 100\r\n\r\nonly a part",
    ]  # fmt: skip


def test_no_hostile_request_gives_500_or_a_traceback(
    site: Site, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    requests = [posted(site, path, data, "Connection: close") for path in POSTS for data in ODD]
    requests += mutated(site) + broken(site)
    assert len(requests) >= 300
    with caplog.at_level(logging.WARNING):
        for data in requests:
            answer = site.raw(data, half_close=True)
            assert not answer.startswith((b"HTTP/1.1 5", b"HTTP/1.0 5")), data[:300]
            assert b"Traceback" not in answer
    assert "Traceback" not in capfd.readouterr().err
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
    assert httpx.post(f"{site.address}/v1/chat/completions", content=VALID).status_code == 200


def test_gate_answers_413_before_it_reads_a_body_that_is_too_long(site: Site) -> None:
    head = posted(site, "/v1/chat/completions", b"", "").replace(b"Content-Length: 0", b"Content-Length: 60000")
    assert site.raw(head).startswith(b"HTTP/1.1 413")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, str]]:
    """A server with one key."""
    folder = tmp_path_factory.mktemp("locked")
    key = Keys(folder / "keys.json").add("ada")
    with running(folder, ("base",), requests_per_minute=20) as made:
        yield made, key


def test_gate_refuses_60_requests_without_a_key(locked: tuple[Site, str]) -> None:
    site, key = locked
    paths = [("POST", path) for path in POSTS] + [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/base"),
        ("GET", "/metrics"),
    ]
    credentials = [
        {}, {"authorization": "Bearer"}, {"authorization": f"Bearer {key[:-1]}"}, {"authorization": f"Basic {key}"},
        {"authorization": key}, {"x-api-key": key},
    ]  # fmt: skip
    answers = []
    with httpx.Client(base_url=site.address) as client:
        for method, path in paths:
            for headers in credentials:
                answers.append(client.request(method, path, headers=headers, content=VALID))
    assert len(answers) == 60
    assert {answer.status_code for answer in answers} == {401}
    assert all(answer.json()["error"]["type"] == "authentication_error" for answer in answers)
    assert all(key not in answer.text for answer in answers)


def test_gate_takes_a_key_until_it_is_revoked(locked: tuple[Site, str], tmp_path: Path) -> None:
    site, key = locked
    keys = Keys(Path(site.server.gate._keys._path))
    other = keys.add("bora")
    with httpx.Client(base_url=site.address, headers={"authorization": f"Bearer {other}"}) as client:
        assert client.get("/v1/models").status_code == 200
        keys.revoke("bora")
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert client.get("/health").status_code == 200


def test_gate_limits_the_requests_a_minute_of_a_key(locked: tuple[Site, str]) -> None:
    site, key = locked
    ask = {"model": "base", "prompt": "x", "max_tokens": 1}
    with httpx.Client(base_url=site.address, headers={"authorization": f"Bearer {key}"}) as client:
        answers = [client.post("/v1/completions", json=ask) for _ in range(60)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_keys_file_holds_no_key_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "keys.json"
    keys = Keys(path)
    key = keys.add("ada")
    assert key not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0
    assert Keys(path).owner(key) == "ada"
    assert Keys(path).owner(key[:-1]) is None
    with pytest.raises(UserError, match="has a key 'ada' already"):
        keys.add("ada")
    with pytest.raises(UserError, match="expected a name"):
        keys.add("a b")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        _ = Keys(path).needed


def test_gate_hides_the_place_of_a_damaged_file_of_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lost otherwise: anyone without a key reads a path of the server."""
    with running(tmp_path, ("base",)) as site:
        (tmp_path / "keys.json").write_text("{", encoding="utf-8")
        answer = httpx.get(f"{site.address}/v1/models")
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text
    assert "keys.json: damaged" in caplog.text


def test_rate_gives_back_a_request_when_its_time_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("pipeline.serving.keys.time.monotonic", lambda: now[0])
    rate = Rate(2)
    for _ in range(2):
        rate.take("ada")
    with pytest.raises(ApiError) as refused:
        rate.take("ada")
    assert refused.value.headers["retry-after"] == "30"
    rate.take("bora")
    now[0] = 30.0
    rate.take("ada")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1"},
    ],
)
def test_gate_refuses_other_names_and_pages_of_other_sites(http: httpx.Client, headers: dict[str, str]) -> None:
    answer = http.post("/v1/chat/completions", content=VALID, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"


def test_log_has_no_text_of_a_request(
    http: httpx.Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = "gizlidüşünce"
    messages = [{"role": "user", "content": secret}]
    with caplog.at_level(logging.DEBUG, logger="tohum.serving"):
        for path in ("/v1/chat/completions", f"/{secret}", f"/v1/models/{secret}?q={secret}"):
            http.post(path, json={"model": "chat-full", "messages": messages, "max_tokens": 2, secret: 1})
        http.post("/v1/chat/completions", json={"model": "chat-full", "messages": messages, "max_tokens": 2})
        http.request(secret.upper().encode("ascii", "ignore").decode(), "/health")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("tohum.serving")]
    assert any(line.startswith("POST /v1/chat/completions 200 ") and " 2 tokens -" in line for line in said)
    assert not any(secret in line or secret.upper() in line for line in said)
    assert secret not in capfd.readouterr().err


def test_page_is_served_under_a_policy_that_runs_nothing_else(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.serving import static

    (tmp_path / "index.html").write_text("<title>x</title>", encoding="utf-8")
    (tmp_path / "page.js").write_text("", encoding="utf-8")
    (tmp_path / "note.txt").write_text("", encoding="utf-8")
    monkeypatch.setattr(static, "_FOLDER", tmp_path)
    for path, kind in (("/", "text/html"), ("/page/page.js", "text/javascript")):
        answer = http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert http.get("/page/note.txt").status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "models.example.org"}, 200),
        ({"host": "models.example.org", "origin": "https://models.example.org"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "models.example.org", "origin": "https://evil.example"}, 403),
        ({"host": "models.example.org", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "models.example.org", "authorization": "Bearer wrong"}, 401),
    ],
)
def test_gate_of_another_host_takes_its_names_with_a_key(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """The gate alone, as no test listens on another address."""
    keys = Keys(tmp_path / "keys.json")
    given = {"authorization": f"Bearer {keys.add('ada')}"} | headers
    chosen = settings(tmp_path, host="10.1.2.3", names=["models.example.org"])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 200, b"{}", {})

    gate = Gate(app, chosen, keys, Metrics(), lambda path: True)
    transport = httpx.ASGITransport(gate)

    async def get() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://10.1.2.3:8100") as client:
            return (await client.get("/v1/models", headers=given)).status_code

    assert asyncio.run(get()) == status


def test_connection_without_a_whole_head_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEADER_SECONDS", 0.05)
    for start in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x"):
        with site.connect() as connection:
            connection.sendall(start)
            assert received(connection) == b""
    with site.connect() as connection:  # also after a first request
        connection.sendall(posted(site, "/v1/chat/completions", VALID))
        answer = b""
        while b'"usage"' not in answer:
            answer += connection.recv(4096)
        connection.sendall(b"GET / HT")
        assert not received(connection).startswith(b"HTTP/")
