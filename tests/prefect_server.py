"""A real Prefect server on a free port, asked over HTTP, for tests of the flows and deployments."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests import scratch

PREFECT = [sys.executable, "-m", "prefect"]
FLOW = [sys.executable, "-m", "pipeline.cli", "flow"]


@dataclass(frozen=True)
class Server:
    """A running Prefect server, asked over HTTP: what a user's browser sees."""

    url: str
    environment: dict[str, str]

    def find(self, what: str, **filters: Any) -> list[dict[str, Any]]:
        """The flow_runs, task_runs or artifacts that match, newest first where that has a meaning."""
        found: list[dict[str, Any]] = self.ask("POST", f"{what}/filter", filters)
        return found

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """The answer to a request; repeated while the server's SQLite file is busy, as Prefect's clients do."""
        deadline = time.monotonic() + 120
        while True:
            answer = httpx.request(method, f"{self.url}/{path}", json=content, timeout=60)
            if answer.status_code != 503 or time.monotonic() > deadline:
                answer.raise_for_status()
                return answer.json() if answer.content else None
            time.sleep(0.5)

    def artifact(self, key: str) -> str:
        """The text of the newest artifact of a key."""
        found = self.find("artifacts/latest", artifacts={"key": {"any_": [key]}})
        return str(found[0]["data"]) if found else ""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the flow in the working directory, without registration."""
        command = [*FLOW, "--no-register", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, encoding="utf-8", check=False)

    def assert_tasks(self, expected: dict[str, str]) -> None:
        """The newest flow run's task runs have these states; they reach the server a moment after the end."""
        newest = self.find("flow_runs", sort="START_TIME_DESC", limit=1)[0]["id"]
        deadline = time.monotonic() + 60
        while True:
            runs = self.find("task_runs", flow_runs={"id": {"any_": [newest]}})
            found = {run["name"]: run["state_name"] for run in runs}
            if found == expected or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        assert found == expected


@contextmanager
def running(home: Path) -> Iterator[Server]:
    """A server with its files in `home`, until the end of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    environment = scratch.environment() | variables
    command = [*PREFECT, "server", "start", "--port", str(port), "--no-ui"]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: _healthy(url), 300, "the Prefect server did not start")
        yield Server(url, environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def until(true: Callable[[], Any], seconds: float, otherwise: str) -> None:
    """Waits for a condition; fails with `otherwise` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)
