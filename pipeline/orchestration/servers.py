"""Local servers of MLflow and Prefect on 127.0.0.1, closed to other origins, behind a password; a Prefect worker.

`mlflow server` has no password without Flask-WTF and `prefect server start` answers every origin and any name, so their
applications run here behind same_origin.py, in the server that they come with (uvicorn).
Ports: TOHUM_MLFLOW_PORT and TOHUM_PREFECT_PORT.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pipeline import config
from pipeline.entry import QUIET
from pipeline.errors import UserError
from pipeline.orchestration.mlflow_pages import ModelTraining
from pipeline.orchestration.same_origin import SameOrigin
from pipeline.paths import SECRETS
from pipeline.tracking import credentials
from pipeline.tracking.credentials import HOST, Server

POOL = "tohum"


def serve(server: Server) -> None:
    """Serves until interrupted. Raises UserError where the port is taken."""
    import uvicorn

    os.environ |= QUIET | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    make: Callable[[str], SameOrigin] = _mlflow if server == "mlflow" else _prefect
    secret = credentials.secret(server)
    port = credentials.port(server)
    _require_free(server, port)
    user = secret.partition(":")[0]
    print(
        f"{server} on {credentials.address(server)}; user {user}, password after the colon in {SECRETS / server}"
        + (" (Prefect's page needs the whole line)" if server == "prefect" else ""),
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
    """Prefect's application, which checks the secret itself: its pages send it, also over WebSockets."""
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


def become_worker() -> NoReturn:
    """Makes the work pool, the deployments of prefect.yaml and their automations, then becomes the worker.

    Raises:
        UserError: no prefect.yaml here, or a server that does not answer.
    """
    if not Path("prefect.yaml").is_file():
        raise UserError("prefect.yaml: no such file; run from the project's root")
    # Only Prefect's: clients of the local MLflow find its password themselves (artifact_store.connect).
    own = {key: value for key, value in credentials.client_environment().items() if key.startswith("PREFECT_")}
    environment = {**os.environ, **QUIET, **own}
    environment.setdefault("TOHUM_DIR", str(Path.cwd()))
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    if subprocess.run([*prefect, "work-pool", "inspect", POOL], env=environment, capture_output=True).returncode:
        _run(prefect, ["work-pool", "create", POOL, "--type", "process"], environment)
    _run(prefect, ["deploy", "--all"], environment)
    os.environ |= environment  # Prefect reads its variables when it is imported
    from pipeline.orchestration import automations

    automations.make()
    os.execve(sys.executable, [*prefect, "worker", "start", "--pool", POOL], environment)


def _run(prefect: list[str], words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run([*prefect, *words], env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no reason given"]
        raise UserError(
            f"prefect {' '.join(words)}: {last[0]}; is the server at {environment.get('PREFECT_API_URL')} up? "
            "`tohum prefect` starts one"
        )


def client_environment() -> dict[str, str]:
    """This process's environment with the addresses and passwords of the local servers."""
    return {**os.environ, **QUIET, **credentials.client_environment()}


def become(words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replaces this process by a command. Raises UserError where it cannot be started."""
    try:
        os.execvpe(words[0], list(words), environment)
    except OSError as error:
        raise UserError(f"tohum run: {words[0]}: {error.strerror}; expected a command on the PATH") from None


def _require_free(server: Server, port: int) -> None:
    """Raises UserError where the port is taken, perhaps by a server without a password."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST}: {error.strerror}; stop the program that listens there, or set "
                f"TOHUM_{server.upper()}_PORT"
            ) from None
