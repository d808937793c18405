"""The stack: its database kept through kills, backup and restore; the compose file's structure.

MLflow and Prefect beside it are killed and restored in tests/torture/stack.py. Lost otherwise: every version and its
review.
"""

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.orchestration import stack, stack_backup, stack_postgres
from pipeline.orchestration.stack_supervisor import Supervisor
from tests import scratch
from tests.prefect_server import until

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder that another user can enter: root lets one run PostgreSQL; pytest's own are closed."""
    try:
        stack_postgres.program("initdb")
    except UserError as error:
        pytest.skip(str(error))
    folder = Path(tempfile.mkdtemp(prefix="tohum-stack-"))
    folder.chmod(0o711)
    monkeypatch.chdir(folder)
    for name in ("POSTGRES", "MLFLOW", "PREFECT"):
        monkeypatch.setenv(f"TOHUM_{name}_PORT", str(_free_port()))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def database() -> Iterator[Supervisor]:
    """PostgreSQL alone under the supervisor."""
    stack.STACK.mkdir(parents=True, exist_ok=True)
    stack_postgres.make()
    supervisor = Supervisor(stack.services()[:1])
    thread = threading.Thread(target=supervisor.loop)
    thread.start()
    try:
        until(lambda: stack_postgres.ready() and has_databases(), 120, "PostgreSQL did not start")
        yield supervisor
    finally:
        supervisor.stopped = True
        thread.join()


def has_databases() -> bool:
    try:
        return set(stack_postgres.DATABASES) <= set(
            stack_postgres.query("postgres", "SELECT datname FROM pg_database").split()
        )
    except UserError:
        return False


def rows() -> str:
    return stack_postgres.query("mlflow", "SELECT word FROM kept ORDER BY word")


def test_database_is_kept_when_killed_and_when_deleted_and_restored(place: Path) -> None:
    with database():
        stack_postgres.query("mlflow", "CREATE TABLE kept (word text)")
        stack_postgres.query("mlflow", "INSERT INTO kept VALUES ('çay')")
        first = stack_postgres.pid()
        assert first
        os.kill(first, signal.SIGKILL)
        until(lambda: stack_postgres.pid() not in (None, first) and stack_postgres.ready(), 120, "no restart")
        assert rows() == "çay"
        stack.ARTIFACTS.mkdir(exist_ok=True)
        (stack.ARTIFACTS / "card.md").write_text("a card", encoding="utf-8")
        said = stack_backup.backup(Path("backup.tar"))
        assert "it holds passwords" in said
        assert Path("backup.tar").stat().st_mode & 0o777 == 0o600
        with pytest.raises(UserError, match="is there already"):
            stack_backup.backup(Path("backup.tar"))
    password = (place / ".tohum/secrets/postgres").read_text(encoding="utf-8")
    assert password.strip() not in " ".join(stack_postgres.command())
    shutil.rmtree(place / ".tohum")
    stack_backup.restore(Path("backup.tar"))
    assert (place / ".tohum/secrets/postgres").read_text(encoding="utf-8") == password
    assert (stack.ARTIFACTS / "card.md").read_text(encoding="utf-8") == "a card"
    with database():
        assert rows() == "çay"
        stack_postgres.query("mlflow", "INSERT INTO kept VALUES ('ışık')")
    _restore_refuses_a_damaged_backup()
    with database():
        assert rows() == "çay\nışık", "a refused restore changed the stack"


def _restore_refuses_a_damaged_backup() -> None:
    whole = Path("backup.tar").read_bytes()
    at = whole.index(b"PGDMP") + 700
    for content in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[: len(whole) // 2], b"no tar"):
        Path("damaged.tar").write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            stack_backup.restore(Path("damaged.tar"))


def test_down_signals_nobody_while_the_supervisor_has_not_named_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 0 is the caller's own group: a shell, make, or the worker would end."""
    found, signalled = iter([0, 0, 4711, 4711, None]), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stack, "supervisor", lambda: next(found))
    monkeypatch.setattr(os, "kill", lambda *words: signalled.append(words))
    assert stack.down() == "stopped"
    assert signalled == [(4711, signal.SIGTERM)]


def test_supervisor_goes_on_when_the_database_is_killed_before_its_databases_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stack.STACK.mkdir(parents=True)
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    supervisor, asked = Supervisor((stack.Service("postgres", lambda: words, dict, lambda: True),)), []

    def make_databases() -> None:
        asked.append(1)
        if len(asked) == 1:
            raise UserError("psql: connection refused")
        supervisor.stopped = True

    monkeypatch.setattr(stack_postgres, "make_databases", make_databases)
    monkeypatch.setattr(stack_postgres, "account_of_server", dict)
    supervisor.loop()
    assert len(asked) == 2


def test_up_names_a_port_that_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("TOHUM_PREFECT_PORT", str(taken.getsockname()[1]))
        with pytest.raises(UserError, match="TOHUM_PREFECT_PORT"):
            stack.up()
    assert stack.supervisor() is None
    lines, well = stack.status()
    assert not well
    assert [line.split()[1:3] for line in lines[:3]] == [["no", "answer"]] * 3


def _compose() -> dict[str, object]:
    text = (scratch.ROOT / "infra/compose.yaml").read_text(encoding="utf-8")
    assert "UNTESTED HERE" in text
    found: dict[str, object] = yaml.safe_load(text)
    return found


def test_compose_file_binds_to_this_machine_and_holds_no_password() -> None:
    compose = _compose()
    services: dict[str, dict[str, object]] = compose["services"]  # type: ignore[assignment]
    assert set(services) == {"postgres", "mlflow", "prefect"}
    known: Callable[[str], set[str]] = lambda kind: set(compose[kind])  # type: ignore[call-overload]  # noqa: E731
    for name, service in services.items():
        assert all(str(port).startswith("127.0.0.1:") for port in service["ports"]), name  # type: ignore[attr-defined]
        assert service["healthcheck"], name
        assert "image" in service
        for volume in service.get("volumes", []):  # type: ignore[attr-defined]
            assert str(volume).split(":")[0] in known("volumes")
        for used in service.get("configs", []):  # type: ignore[attr-defined]
            assert used["source"] in known("configs")
        if name != "postgres":
            assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    secret = [line for line in yaml.safe_dump(compose).splitlines() if "password" in line.lower()]
    assert all("${TOHUM_" in line or "scram" in line or "authenticate" in line for line in secret), secret
