"""The hub, spoken to by the real client over a small hub on this machine: pinned, streamed, refused in a
sentence."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.config import plugins
from pipeline.config.recipe import Part
from pipeline.errors import UserError

REPO, REVISION = "someone/things", "a" * 40
FILES = {
    "train.jsonl": b"".join(b'{"body": "text %d", "class": %d}\n' % (k, k % 2) for k in range(1200)),
    "test.jsonl": b'{"body": "NA", "class": 0}\n{"body": "", "class": 1}\n{"body": null, "class": 1}\n',
}
# Runs in a process of its own, because the client reads its address once, when it is imported.
READ = """
import json, sys
from pipeline.errors import UserError
from pipeline.data.ledger import RowLog
from pipeline.data.sources import hub
answers = []
for settings in json.load(sys.stdin):
    rejections = []
    log = RowLog("hub", rejections.extend)
    try:
        read = hub.read(hub.Settings.model_validate(settings), "hub", log)
        rows = [row for _, table in read for row in table.to_pylist()]
        log.flush()
        answers.append({"rows": rows, "rejections": [(one.line, one.reason) for one in rejections]})
    except UserError as error:
        answers.append({"error": str(error)})
json.dump(answers, sys.stdout)
"""


class Hub(BaseHTTPRequestHandler):
    """A hub's answers for one dataset of two files, at one commit."""

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        files = f"/datasets/{REPO}/resolve/{REVISION}/"
        if path == f"/api/datasets/{REPO}/revision/{REVISION}":
            self._json(
                {
                    "id": REPO,
                    "sha": REVISION,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                    "siblings": [{"rfilename": name} for name in FILES],
                }
            )
        elif path == f"/api/datasets/{REPO}/tree/{REVISION}":
            self._json([self._entry(name) for name in FILES])
        elif path == f"/api/datasets/{REPO}/paths-info/{REVISION}":
            self._json([self._entry(name) for name in FILES if name in body.decode()])
        elif path.startswith(files) and path.removeprefix(files) in FILES:
            self._file(FILES[path.removeprefix(files)])
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION})

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def _entry(self, name):
        return {"type": "file", "oid": "0" * 40, "size": len(FILES[name]), "path": name}

    def _file(self, data):
        headers = {"ETag": '"x"', "X-Repo-Commit": REVISION}
        if not (asked := self.headers.get("Range")):
            return self._send(200, data, headers)
        first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
        last = min(last, len(data) - 1)
        self._send(206, data[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(data)}"})

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def settings(**fields):
    return {
        "repo": REPO,
        "revision": REVISION,
        "config_name": None,
        "part": "train",
        "limit": None,
        "kind": "labelled",
        "columns": {"text": "body", "label": "class"},
        "labels": {"0": "ham", "1": "spam"},
        "language": "en",
        "split": None,
    } | fields


CASES = {
    "all": settings(),
    "limit": settings(limit=3),
    "test": settings(part="test", split="test"),
    "wrong part": settings(part="nope"),
    "wrong configuration": settings(config_name="nope"),
    "wrong revision": settings(revision="b" * 40),
    "wrong repository": settings(repo="someone/nothing"),
    "wrong column": settings(columns={"label": "class"}),
    "folder": settings(repo="here"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Every case read by one process of the real client."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "here").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(folder / "cache"),
        "PYTHONPATH": str(plugins.ROOT.parent),
        "PATH": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(list(CASES.values())),
        text=True,
        capture_output=True,
        cwd=folder,
        env=environment,
        timeout=120,
        check=False,
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


def test_hub_reads_every_row_with_its_label(answers):
    rows = answers["all"]["rows"]
    assert [(r["text"], r["label"]) for r in rows[:2]] == [("text 0", "ham"), ("text 1", "spam")]
    assert len(rows) == 1200
    assert rows[-1]["origin"] == "someone/things/train:1200"


def test_hub_stops_at_the_limit(answers):
    assert len(answers["limit"]["rows"]) == 3


def test_hub_logs_rejected_rows_and_keeps_words(answers):
    assert [(r["text"], r["split"]) for r in answers["test"]["rows"]] == [("NA", "test")]
    assert answers["test"]["rejections"] == [[2, "empty"], [3, "null"]]


@pytest.mark.parametrize("case", ["wrong part", "wrong configuration", "wrong revision", "wrong repository"])
def test_hub_names_a_missing_part_or_revision(answers, case):
    error = answers[case]["error"]
    assert "cannot be read from the hub" in error
    assert "check repo, revision, config_name and part in download.sources.hub" in error
    assert "\n" not in error


def test_hub_lists_the_columns_for_a_wrong_one(answers):
    assert "no column 'text' (our text); found: ['body', 'class']" in answers["wrong column"]["error"]


def test_hub_refuses_a_local_folder_of_the_same_name(answers):
    """The provenance would name a hub commit for bytes that never came from there."""
    assert "exists and would be read in place of the hub's" in answers["folder"]["error"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("revision", "main"),
        ("revision", "a" * 39),
        ("revision", None),
        ("repo", "../x"),
        ("repo", "a/b/c"),
        ("limit", 0),
    ],
)
def test_hub_settings_refuse_an_unpinned_dataset(field, value):
    with pytest.raises(UserError, match=f"download.sources.hub.{field}"):
        Part.model_validate({"name": "hub"} | settings(**{field: value})).settings(
            "data/sources", "download.sources.hub"
        )
