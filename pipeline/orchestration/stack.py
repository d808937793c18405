"""PostgreSQL, MLflow and Prefect as plain processes on 127.0.0.1, for `tohum stack`.

MLflow runs with its own logins (basic auth): the administrator is the line in `.tohum/secrets/mlflow`, and adds people
and their permissions. Prefect answers the line in `.tohum/secrets/prefect`. Both keep their records in PostgreSQL;
MLflow's files lie in `.tohum/stack/artifacts`. A supervisor (stack_supervisor.py) starts them in this order and again
whenever one ends; passwords go through the environment or files of mode 600, never through a command line.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipeline.entry import QUIET
from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.orchestration import stack_postgres
from pipeline.orchestration.process import GUARD
from pipeline.paths import STACK
from pipeline.tracking import credentials
from pipeline.tracking.credentials import HOST, Server

ARTIFACTS = STACK / "artifacts"
LOCK = STACK / "supervisor.lock"
"""Held by the supervisor, and names its process."""
SECRETS_OF_STACK: tuple[Server, ...] = ("postgres", "mlflow", "prefect")
_START_S, _STOP_S = 600.0, 90.0


@dataclass(frozen=True)
class Service:
    """One process of the stack."""

    name: Server
    command: Callable[[], Sequence[str]]
    environment: Callable[[], Mapping[str, str]]
    healthy: Callable[[], bool]

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return STACK / f"{self.name}.log"


def services() -> tuple[Service, ...]:
    """The processes in the order of their start."""
    return (
        Service("postgres", stack_postgres.command, dict, stack_postgres.ready),
        Service("mlflow", _mlflow, _mlflow_environment, lambda: _answers("mlflow", "/health")),
        Service("prefect", _prefect, _prefect_environment, lambda: _answers("prefect", "/api/health")),
    )


def up() -> list[str]:
    """Starts what does not run; returns a line for each service once all are healthy.

    Raises:
        UserError: a package is missing, a port is taken, or a service does not become healthy.
    """
    _require_packages()
    STACK.mkdir(parents=True, exist_ok=True)
    if supervisor() is None:
        stop_left_postgres()
        for service in services():
            credentials.secret(service.name)
            _require_free(service.name)
        with (STACK / "supervisor.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.orchestration.stack_supervisor"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **QUIET},
            )
    ends = time.monotonic() + _START_S
    for service in services():
        while not service.healthy():
            if time.monotonic() > ends or (supervisor() is None and time.monotonic() > ends - _START_S + 30):
                raise UserError(f"{service.name} does not answer; see {service.log} and {STACK / 'supervisor.log'}")
            time.sleep(0.5)
    return status()[0]


def down() -> str:
    """Stops everything, PostgreSQL last; returns a sentence.

    Raises:
        UserError: it does not end.
    """
    ends = time.monotonic() + _STOP_S
    while (process := supervisor()) == 0 and time.monotonic() < ends:  # it has begun, and not named itself yet
        time.sleep(0.2)
    if process is None:
        stop_left_postgres()
        return "the stack does not run"
    if process:  # 0 would be the caller's own process group
        os.kill(process, signal.SIGTERM)
    while supervisor() is not None:
        if time.monotonic() > ends:
            raise UserError(f"the supervisor, process {process}, does not end; see {STACK / 'supervisor.log'}")
        time.sleep(0.2)
    return "stopped"


def status() -> tuple[list[str], bool]:
    """A line for each service, and whether all answer."""
    process = supervisor()
    lines, well = [], process is not None
    for service in services():
        healthy = service.healthy()
        well = well and healthy
        place = (
            f"{HOST}:{credentials.port('postgres')}"
            if service.name == "postgres"
            else credentials.address(service.name)
        )
        lines.append(f"{service.name:<9} {'answers' if healthy else 'no answer':<10} {place:<22} {service.log}")
    lines.append(f"supervisor {f'process {process}' if process else 'does not run: tohum stack up'}")
    return lines, well


def supervisor() -> int | None:
    """The supervisor's process; 0 while it has not named itself, None where none runs."""
    try:
        with LOCK.open("r") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = stream.read().strip()
                return int(text) if text.isdigit() else 0
    except FileNotFoundError:
        pass
    return None


def _mlflow() -> list[str]:
    words = ["server", "--app-name", "basic-auth", "--workers", "1", "--host", HOST, "--port",
             str(credentials.port("mlflow")), "--artifacts-destination", str(ARTIFACTS.resolve())]  # fmt: skip
    return [sys.executable, "-P", str(GUARD), "mlflow", *words]


def _mlflow_environment() -> dict[str, str]:
    """Database, logins and the key of MLflow's sessions, through variables and a file of mode 600."""
    user, _, password = credentials.secret("mlflow").partition(":")
    settings = STACK / "mlflow.ini"
    lines = [
        "[mlflow]",
        "default_permission = READ",
        f"database_uri = {stack_postgres.address('mlflow_users', 'psycopg2')}",
        f"admin_username = {user}",
        f"admin_password = {password}",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds = 60",  # a password is hashed 600,000 times at each request otherwise
    ]
    _write_secret(settings, "\n".join(lines) + "\n")
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings.resolve()),
        "MLFLOW_BACKEND_STORE_URI": stack_postgres.address("mlflow", "psycopg2"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": password,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _prefect() -> list[str]:
    return [sys.executable, "-P", str(GUARD), "pipeline.cli", "prefect"]


def _prefect_environment() -> dict[str, str]:
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": stack_postgres.address("prefect", "asyncpg")}


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    previous = os.umask(0o077)
    try:
        write_text(path, text)
    finally:
        os.umask(previous)
    path.chmod(0o600)


def _answers(server: Server, path: str) -> bool:
    """Whether a server answers at all: a 401 is an answer too."""
    import http.client

    connection = http.client.HTTPConnection(HOST, credentials.port(server), timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status < 500
    return False


def _require_free(server: Server) -> None:
    """Raises UserError where another program listens on the server's port."""
    import socket

    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, credentials.port(server)))
        except OSError as error:
            raise UserError(
                f"port {credentials.port(server)} of {HOST}: {error.strerror}; stop the program that listens there, or "
                f"set TOHUM_{server.upper()}_PORT"
            ) from None


def stop_left_postgres() -> None:
    """Ends a server whose supervisor was killed: PostgreSQL goes on without its parent."""
    if stack_postgres.pid() is not None:
        with contextlib.suppress(UserError):
            stack_postgres.run(
                "pg_ctl", "stop", "-D", str(stack_postgres.DATA.resolve()), "-m", "fast", "-w", local=True
            )


def _require_packages() -> None:
    missing = [package for package, module in (("flask-wtf", "flask_wtf"), ("psycopg2-binary", "psycopg2"))
               if find_spec(module) is None]  # fmt: skip
    if missing:
        raise UserError(f"the stack needs {' and '.join(missing)}: run `make setup-stack`")
    stack_postgres.program("initdb")
