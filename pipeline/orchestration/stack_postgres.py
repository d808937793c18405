"""PostgreSQL for the stack: its programs, a cluster in `.tohum/stack/postgres`, its databases, dumps and restores.

The programs are those on the PATH, of a Linux distribution (/usr/lib/postgresql) or of the wheel pgserver. The server
listens on 127.0.0.1 only, takes one user with a password (scram-sha-256), and its data pages have checksums.
PostgreSQL refuses to run as root: then a user `postgres` or `pgserver` of the machine runs it and owns the folder.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.paths import STACK
from pipeline.tracking import credentials
from pipeline.tracking.credentials import HOST

DATA = STACK / "postgres"
DATABASES = ("mlflow", "mlflow_users", "prefect")
USER = "tohum"
_USERS = ("postgres", "pgserver")
_WAIT_S = 60


def program(name: str) -> str:
    """The path of a program of PostgreSQL; of the version that the cluster was made with, where there is one.

    Raises:
        UserError: it is not installed.
    """
    version = (DATA / "PG_VERSION").read_text(encoding="ascii").strip() if _readable(DATA / "PG_VERSION") else None
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    if spec := find_spec("pgserver"):
        folders.append(Path(str(spec.origin)).parent / "pginstall/bin")
    on_path = shutil.which("initdb")
    folders = [*([Path(on_path).resolve().parent] if on_path else []), *folders]
    for folder in folders:
        if (folder / name).is_file() and (version is None or _major(folder) == version):
            return str(folder / name)
    wanted = f" {version}" if version else ""
    raise UserError(f"PostgreSQL{wanted} is not installed: install postgresql{wanted} from your distribution, "
                    "or the package pgserver (PostgreSQL 16)")  # fmt: skip


def make() -> None:
    """Makes the cluster unless it is there; a half-made one, of a first start that was killed, is made anew."""
    if (DATA / "PG_VERSION").exists() and not (STACK / "postgres.new").exists():
        return
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True, mode=0o700)
    mark, secret = STACK / "postgres.new", STACK / "postgres.password"
    mark.touch()
    try:
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(_password() + "\n")
        for path in (DATA, secret):
            if account := _account():
                shutil.chown(path, account, account)
        run("initdb", "--pgdata", str(DATA.resolve()), "--username", USER, "--auth", "scram-sha-256", "--encoding",
            "UTF8", "--locale", "C", "--data-checksums", "--pwfile", str(secret.resolve()), local=True)  # fmt: skip
        mark.unlink()
    finally:
        secret.unlink(missing_ok=True)


def command() -> list[str]:
    """The server's command line; it holds no secret."""
    settings = {
        "listen_addresses": HOST,
        "port": str(credentials.port("postgres")),
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": "100",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return [program("postgres"), "-D", str(DATA.resolve()), *words]


def account_of_server() -> dict[str, Any]:
    """Arguments of Popen under which the server runs: another user where this one is root."""
    account = _account()
    return {"user": account, "group": account, "extra_groups": []} if account else {}


def ready() -> bool:
    """Whether the server answers."""
    try:
        words = [program("pg_isready"), "-q", "-h", HOST, "-p", str(credentials.port("postgres")), "-t", "2"]
        return subprocess.run(words, capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def pid() -> int | None:
    """The server's process as its data folder names it, whether it lives or not."""
    try:
        return int((DATA / "postmaster.pid").read_text(encoding="ascii").split("\n")[0])
    except (OSError, ValueError):
        return None


def make_databases() -> None:
    """Makes the databases that are missing."""
    there = query("postgres", "SELECT datname FROM pg_database").split()
    for name in DATABASES:
        if name not in there:
            query("postgres", f"CREATE DATABASE {name}")


def query(database: str, text: str) -> str:
    """The rows of a statement, fields separated by |."""
    return run("psql", "--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text)


def dump(database: str, target: Path) -> None:
    """Writes a database at one moment to a file in PostgreSQL's custom format."""
    run("pg_dump", "--format=custom", "--dbname", database, "--file", str(target))


def restore(database: str, source: Path) -> None:
    """Puts a dump into an empty database; whole or not at all."""
    run("pg_restore", "--dbname", database, "--single-transaction", "--exit-on-error", "--no-owner", str(source))


def address(database: str, driver: str) -> str:
    """SQLAlchemy's address of a database. It holds the password: for environments and files of mode 600 only."""
    user, _, password = credentials.secret("postgres").partition(":")
    return f"postgresql+{driver}://{user}:{password}@{HOST}:{credentials.port('postgres')}/{database}"


def run(name: str, *words: str, local: bool = False) -> str:
    """Output of a program of PostgreSQL against the server, or, with `local`, on its files.

    Raises:
        UserError: it failed, with its last line.
    """
    where = [] if local else ["-h", HOST, "-p", str(credentials.port("postgres")), "-U", USER]
    # a user that may not read this folder would be told so by every program
    how: Mapping[str, Any] = {"cwd": "/", **account_of_server()} if local else {}
    environment = {**os.environ, "LC_ALL": "C"} | ({} if local else {"PGPASSWORD": _password()})
    done = subprocess.run([program(name), *where, *words], capture_output=True, encoding="utf-8", env=environment,
                          timeout=3600, **how)  # fmt: skip
    if done.returncode:
        raise UserError(f"{name}: {_last(done.stderr or done.stdout)}")
    return str(done.stdout).strip()


def _last(text: str) -> str:
    lines: Sequence[str] = [line for line in text.strip().splitlines() if line.strip()]
    said = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return (said or lines or ["no reason given"])[-1].strip()


def _password() -> str:
    return credentials.secret("postgres").partition(":")[2]


def _account() -> str | None:
    """The user that runs the server where this one is root; None where this one runs it.

    Raises:
        UserError: root, and no such user, or a folder that it cannot enter.
    """
    if os.geteuid() != 0:
        return None
    import pwd

    for name in _USERS:
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        closed = next((path for path in STACK.resolve().parents if not path.stat().st_mode & 0o001), None)
        if closed is not None:
            raise UserError(f"{closed}: the user {name}, who runs PostgreSQL for root, cannot enter it; run the stack "
                            "as another user than root, or move the project")  # fmt: skip
        return name
    raise UserError("PostgreSQL does not run as root; run the stack as another user, or add a user `postgres`")


def _major(folder: Path) -> str | None:
    """Major version of the programs in a folder."""
    done = subprocess.run([str(folder / "postgres"), "--version"], capture_output=True, encoding="utf-8")
    words = done.stdout.split()
    return words[2].partition(".")[0] if len(words) > 2 else None


def _readable(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return False
