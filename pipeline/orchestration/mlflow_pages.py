"""An ASGI middleware that opens MLflow's pages as model training: a browser's first visit stores MLflow's own setting.

MLflow 3.17 opens every experiment with its GenAI pages until a user clicks "Model training", whatever the experiment's
tag `mlflow.experimentKind` holds; the choice is an entry of the browser's localStorage. The checks of same_origin.py
come first.
"""

import json
import sqlite3
from pathlib import Path

from pipeline.orchestration.same_origin import App, Receive, Scope, Send

STORE = Path("mlflow.db")
START = "/start"
KEY, VERSION, CHOICE = "mlflow.workflowType", 1, "machine_learning"
"""As MLflow's pages name the entry, its version and the choice; a test looks for them there."""
_VISITED = b"tohum_visited=1"


class ModelTraining:
    """MLflow's application; a first visit of `/` goes over a page that makes the choice, later ones do not."""

    def __init__(self, app: App, experiment: str) -> None:
        """`experiment`: name of the experiment to show."""
        self._app, self._experiment = app, experiment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in ("/", START):
            await self._app(scope, receive, send)
        elif scope["path"] == START:
            page = _page(self._experiment).encode()
            cookie = (b"set-cookie", _VISITED + b"; Path=/; SameSite=Strict; HttpOnly; Max-Age=31536000")
            await _answer(send, 200, [(b"content-type", b"text/html; charset=utf-8"), cookie], page)
        elif _is_first_visit(scope):
            await _answer(send, 307, [(b"location", START.encode())])  # a browser keeps the fragment after the #
        else:
            await self._app(scope, receive, send)


def _is_first_visit(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"sec-fetch-mode") == b"navigate" and _VISITED not in headers.get(b"cookie", b"").split(b"; ")


def _page(experiment: str) -> str:
    where = json.dumps(f"#/experiments{_number(experiment)}")
    return (
        f"<!doctype html><title>tohum</title><script>localStorage.setItem('{KEY}_v{VERSION}', "
        f"JSON.stringify('{CHOICE}')); location.replace('/' + (location.hash || {where}))</script>"
    )


def _number(experiment: str) -> str:
    """`/<id>/runs` of an experiment; empty if there is none yet: the list of all is shown then."""
    try:
        with sqlite3.connect(f"file:{STORE}?mode=ro", uri=True) as store:
            row = store.execute("SELECT experiment_id FROM experiments WHERE name = ?", (experiment,)).fetchone()
    except sqlite3.Error:
        return ""
    return f"/{row[0]}/runs" if row else ""


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    kept = [*headers, (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": kept})
    await send({"type": "http.response.body", "body": body})
