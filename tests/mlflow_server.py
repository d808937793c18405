"""MLflow's server with its basic-auth plugin on PostgreSQL, for tests of several people and machines at one store."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

ADMIN = "admin"
_START_S = 300


@dataclass(frozen=True)
class Server:
    """A running server."""

    uri: str
    database: str
    """Address of its PostgreSQL database."""
    passwords: dict[str, str]
    """User -> password."""

    def login(self, user: str) -> dict[str, str]:
        """The environment variables of a client."""
        return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": self.passwords[user]}

    def add(self, user: str) -> None:
        """Makes a user, who may read everything."""
        self.passwords[user] = secrets.token_urlsafe(16)
        self._post("2.0/mlflow/users/create", {"username": user, "password": self.passwords[user]})

    def grant(self, user: str, kind: str, resource: str, permission: str = "EDIT") -> None:
        """Gives a user a permission on an experiment (by id) or a registered model (by name)."""
        body = {"username": user, "resource_type": kind, "resource_id": resource, "permission": permission}
        self._post("3.0/mlflow/users/permissions/grant", body)

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        answer = requests.post(f"{self.uri}/api/{path}", json=body, auth=(ADMIN, self.passwords[ADMIN]), timeout=60)
        assert answer.ok, answer.text


@contextmanager
def on_postgres(folder: Path) -> Iterator[Server]:
    """A server on a free port, with databases of its own, until the end of the block."""
    pgserver = pytest.importorskip("pgserver", reason="PostgreSQL's wheel has none for this Python")
    with pgserver.get_server(folder / "postgres", cleanup_mode="stop") as postgres:
        for name in ("mlflow", "users"):
            postgres.psql(f"CREATE DATABASE {name};")
        database, users = (
            postgres.get_uri(name).replace("postgresql:", "postgresql+psycopg2:") for name in ("mlflow", "users")
        )
        password = secrets.token_urlsafe(16)
        settings = folder / "auth.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {users}\n"
            f"admin_username = {ADMIN}\nadmin_password = {password}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            "auth_cache_ttl_seconds = 60\n"  # a password is hashed 600,000 times at each request otherwise
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1",
                   "--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", database,
                   "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            uri = f"http://127.0.0.1:{port}"
            _wait(uri, process, folder / "server.log")
            yield Server(uri, database, {ADMIN: password})
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=60)


def _wait(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            if requests.get(f"{uri}/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, "MLflow's server did not start"
        time.sleep(0.3)
