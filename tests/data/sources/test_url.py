"""Files from the web: whatever the server does, the bytes used are the bytes meant."""

import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.config.recipe import Part
from pipeline.data.ledger import RowLog
from pipeline.data.sources import url
from pipeline.errors import UserError

DATA = b"text,label\n" + b"".join(b"message %06d,ham\n" % k for k in range(20_000))
SHA256 = hashlib.sha256(DATA).hexdigest()
CSV = {"name": "csv", "encoding": "utf-8", "delimiter": ",", "header": True, "quoting": "standard"}


class Server:
    """A web server on this machine that answers as a test scripts it, one script entry a request."""

    def __init__(self) -> None:
        self.script: list[Callable] = []
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append(self.headers.get("Range"))
                (outer.script.pop(0) if outer.script else whole)(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


def send(handler, status, body, length=None, **headers):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def start_of(handler):
    asked = handler.headers.get("Range")
    return int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0


def whole(handler, data=DATA):
    """A server that knows Range."""
    start = start_of(handler)
    if start >= len(data):
        send(handler, 416, b"")
    elif start:
        send(handler, 206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
    else:
        send(handler, 200, data)


def dropping(share):
    """Sends a share of what is left, then drops the connection."""

    def answer(handler):
        left = DATA[start_of(handler) :]
        part = left[: int(len(left) * share)]
        if len(left) < len(DATA):
            send(
                handler,
                206,
                part,
                len(left),
                Content_Range=f"bytes {start_of(handler)}-{len(DATA) - 1}/{len(DATA)}",
            )
        else:
            send(handler, 200, part, len(left))

    return answer


def ignoring_range(handler):
    send(handler, 200, DATA)


def status(code):
    return lambda handler: send(handler, code, b"no")


def silent(handler):
    threading.Event().wait(1.0)
    handler.close_connection = True


def other(handler):
    whole(handler, b"text,label\nother,ham\n")


@pytest.fixture
def server():
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def read(server, tmp_path, monkeypatch):
    """Reads the served file in an empty folder; pauses between attempts are noted, not waited for."""
    monkeypatch.chdir(tmp_path)
    pauses: list[float] = []
    monkeypatch.setattr("pipeline.data.sources._fetch.time.sleep", pauses.append)

    def reading(*script, sha256=SHA256, path="/sms.csv", **fields):
        server.script, server.asked = list(script), []
        pauses.clear()
        entry = url.Settings.model_validate(settings(server.address + path, sha256) | fields)
        log = RowLog("web")
        return [row for _, table in url.read(entry, "web", log) for row in table.to_pylist()]

    reading.pauses = pauses
    reading.folder = tmp_path / ".tohum/downloads"
    return reading


def settings(address, sha256=SHA256):
    return {
        "url": address,
        "sha256": sha256,
        "retries": 3,
        "timeout_s": 5.0,
        "kind": "labelled",
        "columns": {},
        "labels": {},
        "language": "en",
        "split": None,
        "format": CSV,
    }


def test_url_downloads_once_and_names_by_address(read, server):
    rows = read()
    assert len(rows) == 20_000
    assert rows[0]["origin"] == "sms.csv:2"
    assert len(read()) == 20_000
    assert server.asked == []
    assert [path.name for path in read.folder.iterdir()] == [SHA256]


def test_url_resumes_a_dropped_connection(read, server):
    """A large download that starts over at each break never ends."""
    assert len(read(dropping(0.5), dropping(0.5), whole)) == 20_000
    assert server.asked[0] is None
    assert all(asked.startswith("bytes=") for asked in server.asked[1:])
    assert read.pauses == [1.0, 2.0]


def test_url_restarts_where_the_server_ignores_range(read):
    assert len(read(dropping(0.5), ignoring_range)) == 20_000


def test_url_retries_a_busy_server_with_backoff(read):
    assert len(read(status(500), status(503), status(429), whole)) == 20_000
    assert read.pauses == [1.0, 2.0, 4.0]


def test_url_retries_after_a_timeout(read):
    assert len(read(silent, whole, timeout_s=0.2)) == 20_000


def test_url_fails_after_all_retries_and_resumes_in_the_next_run(read, server):
    with pytest.raises(UserError, match=r"the connection failed .* after 2 attempts and [\d,]+ bytes.*web\.retries"):
        read(dropping(0.6), dropping(0.2), retries=1)
    part = read.folder / f"{SHA256}.part"
    assert not (read.folder / SHA256).exists()
    kept = part.stat().st_size
    assert kept > len(DATA) // 2
    assert len(read(whole)) == 20_000
    assert server.asked == [f"bytes={kept}-"]
    assert not part.exists()


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_url_does_not_retry_a_refusal(read, server, code):
    with pytest.raises(UserError, match=rf"answers {code} .*download.sources.web.url"):
        read(status(code))
    assert len(server.asked) == 1
    assert list(read.folder.iterdir()) == []


def test_url_refuses_other_bytes_than_pinned(read):
    with pytest.raises(UserError, match=rf"sha256 is .*21 bytes.*expected {SHA256}.*download.sources.web.sha256"):
        read(other)
    assert list(read.folder.iterdir()) == []


def test_url_restarts_when_the_file_changed_between_attempts(read):
    """Half of the old file and half of the new one is neither."""
    (read.folder).mkdir(parents=True)
    (read.folder / f"{SHA256}.part").write_bytes(b"old" * 1000)
    assert len(read(whole, whole)) == 20_000
    (read.folder / SHA256).unlink()
    (read.folder / f"{SHA256}.part").write_bytes(b"old" * len(DATA))
    assert len(read(whole, whole)) == 20_000


def test_url_downloads_a_damaged_file_again(read, server):
    read()
    (read.folder / SHA256).write_bytes(DATA[:-1])
    assert len(read()) == 20_000
    assert server.asked == [None]


def test_url_names_a_refused_connection(read, server):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match=r"the connection failed .*after 2 attempts"):
        read(retries=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "ftp://host/a"),
        ("url", "file:///etc/passwd"),
        ("url", "a.csv"),
        ("sha256", None),
        ("sha256", "x" * 64),
        ("retries", -1),
    ],
)
def test_url_settings_refuse_an_invalid_address_or_hash(field, value):
    entry = {"name": "url"} | settings("https://host/a.csv") | {field: value}
    with pytest.raises(UserError, match=rf"download.sources.web.{field}"):
        Part.model_validate(entry).settings("data/sources", "download.sources.web")


def test_url_provenance_is_address_and_hash():
    entry = url.Settings.model_validate(settings("https://host/a.csv"))
    assert url.provenance(entry) == {"address": "https://host/a.csv", "sha256": SHA256, "revision": None}
