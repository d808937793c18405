"""Local servers for one person, on 127.0.0.1, closed to other origins, behind a secret: `make ui`, `prefect`, `worker`.

    python -m pipeline.orchestration.servers mlflow         # MLflow on mlflow.db and mlartifacts
    python -m pipeline.orchestration.servers prefect        # Prefect's server
    python -m pipeline.orchestration.servers worker         # work pool, deployment and worker of this checkout
    python -m pipeline.orchestration.servers run COMMAND    # a command with their passwords in its environment

`mlflow server` has no secret without Flask-WTF and `prefect server start` answers every origin and any name, so their
applications run here behind same_origin.py, in the server that they come with (uvicorn).
Ports: TOHUM_MLFLOW_PORT and TOHUM_PREFECT_PORT.
"""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.errors import UserError
from pipeline.orchestration.mlflow_pages import ModelTraining
from pipeline.orchestration.same_origin import SameOrigin
from pipeline.tracking import credentials
from pipeline.tracking.credentials import HOST, SECRETS, Server

POOL = "tohum"
_QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.orchestration.servers", description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("mlflow", help="MLflow's server and pages")
    commands.add_parser("prefect", help="Prefect's server and pages")
    commands.add_parser("worker", help="a worker for the deployment tohum/local of this checkout")
    run = commands.add_parser("run", help="a command with the addresses and secrets in its environment")
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    given = parser.parse_args(arguments)
    os.environ |= _QUIET
    try:
        match given.command:
            case "mlflow":
                _serve("mlflow", _mlflow)
            case "prefect":
                _serve("prefect", _prefect)
            case "worker":
                return _worker()
            case "run":
                return _run(given.words)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(server: Server, make: Any) -> None:
    """Serves until interrupted."""
    import uvicorn

    secret = credentials.secret(server)
    port = credentials.port(server)
    _require_free(server, port)
    user = secret.partition(":")[0]
    print(
        f"{server} on {credentials.address(server)}; user {user}, password after the colon in {SECRETS / server}"
        + (" (Prefect's page asks for the whole line)" if server == "prefect" else ""),
        flush=True,
    )
    # one process, 0.5 GB each; no proxy headers: they could forge the address
    uvicorn.run(make(secret), host=HOST, port=port, log_level="warning", proxy_headers=False, server_header=False)


def _mlflow(secret: str) -> SameOrigin:
    """MLflow's application on the project's store, as `mlflow server` sets it up."""
    from mlflow.server import constants

    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: "sqlite:///mlflow.db",
        constants.REGISTRY_STORE_URI_ENV_VAR: "sqlite:///mlflow.db",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: "mlartifacts",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    from mlflow.server.fastapi_app import app

    experiment = config.load().runtime.tracking.experiment if config.PARAMS.is_file() else ""
    return SameOrigin(ModelTraining(app, experiment), secret, hint=f"; they are in {SECRETS / 'mlflow'}")


def _prefect(secret: str) -> SameOrigin:
    """Prefect's application, which asks for the secret itself: its pages know how to send it, WebSockets included."""
    os.environ |= {
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": credentials.address("prefect"),
        "PREFECT_UI_API_URL": f"{credentials.address('prefect')}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(credentials.port("prefect")),
    }
    from prefect.server.api.server import create_app

    return SameOrigin(create_app(final=True))


def _worker() -> int:
    """Makes the work pool and the deployment of prefect.yaml, then becomes the worker."""
    if not Path("prefect.yaml").is_file():
        raise UserError("prefect.yaml: no such file; run from the project's root")
    # MLflow's secret is found by whoever asks the local server (artifact_store.connect); runs may use another one.
    own = {key: value for key, value in credentials.client_environment().items() if key.startswith("PREFECT_")}
    environment = {**os.environ, **own}
    environment.setdefault("TOHUM_DIR", str(Path.cwd()))
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    if subprocess.run([*prefect, "work-pool", "inspect", POOL], env=environment, capture_output=True).returncode:
        _tell(prefect, ["work-pool", "create", POOL, "--type", "process"], environment)
    _tell(prefect, ["deploy", "--name", "local"], environment)
    os.execve(sys.executable, [*prefect, "worker", "start", "--pool", POOL], environment)


def _tell(prefect: list[str], words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run([*prefect, *words], env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no reason given"]
        raise UserError(
            f"prefect {' '.join(words)}: {last[0]}; is the server at {environment.get('PREFECT_API_URL')} up? `make "
            "prefect` starts one"
        )


def _run(words: list[str]) -> int:
    """Becomes the command."""
    words = words[1:] if words[:1] == ["--"] else words
    if not words:
        raise UserError("run: no command given; e.g. run prefect deployment run tohum/local")
    try:
        os.execvpe(words[0], words, {**os.environ, **credentials.client_environment()})
    except OSError as error:
        raise UserError(f"run: {words[0]}: {error.strerror}") from None


def _require_free(server: Server, port: int) -> None:
    """Raises UserError where something listens already: perhaps a server without a secret."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST}: {error.strerror}; stop what listens there, or set TOHUM_{server.upper()}_PORT"
            ) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
