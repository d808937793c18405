"""Addresses and secrets of the local servers: `.tohum/secrets/<server>`, one line `user:password`, made at first use.

The file is readable only by its owner, is never printed, logged or passed as an argument (visible to other users), and
gives access to the servers that `tohum ui`, `tohum prefect` and `tohum stack` start. Clients get it through the
variables that their libraries read: `client_environment`, or `tohum run COMMAND`.
"""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pipeline.errors import UserError
from pipeline.paths import SECRETS

Server = Literal["mlflow", "prefect", "postgres"]
SERVERS: tuple[Server, ...] = get_args(Server)
HOST = "127.0.0.1"
_PORTS = {"mlflow": 5000, "prefect": 4200, "postgres": 5433}
"""PostgreSQL's is not its usual one, where a server of the machine's may listen."""
_FORM = re.compile(r"tohum:[\w-]{40,}", re.ASCII)


def port(server: Server) -> int:
    """The server's port: TOHUM_MLFLOW_PORT, TOHUM_PREFECT_PORT or TOHUM_POSTGRES_PORT, else 5000, 4200, 5433."""
    name = f"TOHUM_{server.upper()}_PORT"
    given = os.environ.get(name) or str(_PORTS[server])
    if not (given.isascii() and given.isdigit() and 0 < int(given[:6]) < 1 << 16):
        raise UserError(f"{name} is {given!r}, expected a port from 1 to 65535")
    return int(given)


def address(server: Server) -> str:
    """The server's address, e.g. http://127.0.0.1:5000."""
    return f"http://{HOST}:{port(server)}"


def secret(server: Server) -> str:
    """`user:password` of a server, made if there is none; two first starts at once get the same.

    Raises:
        UserError: a file that other users may read, or with invalid content.
    """
    path = SECRETS / server
    if not os.path.lexists(path):
        write_once(path, f"tohum:{secrets.token_urlsafe(32)}")
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise UserError(
            f"{path}: is no plain file or other users may read it (mode {stat.S_IMODE(mode):o}), expected 600; remove "
            "it, and a new secret is made at the next start"
        )
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _FORM.fullmatch(text):
        raise UserError(f"{path}: holds no secret, expected tohum:<password>; remove it, and start the server again")
    return text


def client_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables for Prefect's and MLflow's clients of the local servers.

    A server of the user's own (PREFECT_API_URL, MLFLOW_TRACKING_URI) is left as it is, and so are given passwords.
    """
    found: dict[str, str] = {}
    api = f"{address('prefect')}/api"
    if environment.get("PREFECT_API_URL", api) == api:
        found |= {"PREFECT_API_URL": api}
        found |= {"PREFECT_API_AUTH_STRING": environment.get("PREFECT_API_AUTH_STRING") or secret("prefect")}
    uri = environment.get("MLFLOW_TRACKING_URI", address("mlflow"))
    if is_local_mlflow(uri):
        found |= {"MLFLOW_TRACKING_URI": uri} | mlflow_login(environment)
    return found


def is_local_mlflow(uri: str) -> bool:
    """Whether a tracking URI is that of the local server."""
    return uri.rstrip("/") in (address("mlflow"), f"http://localhost:{port('mlflow')}")


def mlflow_login(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """MLflow's two variables for its local server; {} where the user has set them."""
    if environment.get("MLFLOW_TRACKING_USERNAME") or environment.get("MLFLOW_TRACKING_TOKEN"):
        return {}
    user, _, password = secret("mlflow").partition(":")
    return {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}


def write_once(path: Path, secret: str) -> None:
    """Writes a new secret, a line that only its owner may read; one that is there already stays.

    It is written under another name, then linked in place: it is there whole or not at all.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another first start was quicker
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
