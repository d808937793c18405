"""Several people and machines at one store: MLflow with logins on PostgreSQL, and SQLite in one file."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.registry import CHAMPION, VERSION, Registry, identity
from pipeline.registry.ledger_store import EXPERIMENT, Ledger
from tests import mlflow_server
from tests.commands import tohum
from tests.mlflow_server import ADMIN, Server
from tests.registries import make_model, params, register

pytestmark = pytest.mark.slow
OURS = "tohum-spam-full"
CHECKOUTS = ("ada", "grace", "emmy", "rosa")
"""Each is a checkout of its own and, at the server, a user of that name."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with four reviewers and a reader; the first version is registered by the administrator."""
    folder, before = tmp_path_factory.mktemp("server"), Path.cwd()
    with mlflow_server.on_postgres(folder) as running, pytest.MonkeyPatch.context() as patch:
        for user in (*CHECKOUTS, "reader"):
            running.add(user)
        log_in(running, ADMIN, patch)
        (folder / "trainer").mkdir()
        os.chdir(folder / "trainer")
        make_model("spam-full")
        register(Registry(params(running.uri)), "spam-full")
        yield running
    os.chdir(before)


def log_in(server: Server, user: str, patch: pytest.MonkeyPatch) -> None:
    for name, value in server.login(user).items():
        patch.setenv(name, value)


def decide_at_once(uri: str, folder: Path, logins: dict[str, dict[str, str]]) -> list[str]:
    """Sixteen decisions at the same moment, four in each of four checkouts; what each reviewer was told."""
    running = []
    settings = folder.with_suffix(".json")
    settings.write_text(params(uri).model_dump_json(by_alias=True))
    for name in CHECKOUTS:
        (folder / name).mkdir(parents=True)
        command = [sys.executable, "-m", "tests.registry.reviewers", str(folder), name, "4"]
        environment = os.environ | logins.get(name, {}) | {"PYTHONPATH": str(ROOT)}
        with settings.open() as given:
            running.append(
                subprocess.Popen(
                    command, cwd=folder / name, env=environment, stdin=given, stdout=subprocess.PIPE, encoding="utf-8"
                )
            )
    try:
        deadline = time.monotonic() + 300
        waiting = [folder / f"{name}-{number}" for name in CHECKOUTS for number in range(4)]
        while not all(path.exists() for path in waiting):
            assert time.monotonic() < deadline, "not every reviewer came as far as the decision"
            assert all(process.poll() is None for process in running), "a reviewer ended before the decision"
            time.sleep(0.05)
        (folder / "go").touch()
        return [
            said for process in running for said in json.loads(process.communicate(timeout=300)[0].splitlines()[-1])
        ]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()


def assert_one_won(said: list[str], store: Registry) -> None:
    assert len(said) == 16
    assert said.count("") == 1, said
    chain = store.ledger.chain(OURS)
    assert chain.problems == ()
    (entry,) = chain.entries
    expected = f"{OURS}: decided at the same time: entry 1 of the ledger is the approval of version 1 by {entry.who}, "
    assert [text for text in said if text and not text.startswith(expected)] == []
    assert entry.why == f"{CHECKOUTS[said.index('') // 4]} {said.index('') % 4}"
    champion = store.champion("spam-full")
    assert champion is not None
    assert str(champion.version) == "1"


def test_one_of_sixteen_reviewers_wins_in_a_database_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four checkouts on one disk; nobody has decided before, so the ledger itself is made at the same moment."""
    monkeypatch.chdir(tmp_path)
    make_model("spam-full")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    store = Registry(params(uri))
    register(store, "spam-full")
    assert_one_won(decide_at_once(uri, tmp_path / "reviewers", {}), store)
    ledgers = store.client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
    assert [experiment.name for experiment in ledgers] == [EXPERIMENT]


def test_one_of_sixteen_reviewers_wins_at_a_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four users with EDIT; the entry names the login that the server knows, whatever git and the computer say."""
    log_in(server, ADMIN, monkeypatch)
    store = Registry(params(server.uri))
    made = Ledger(store.client, store.place)._create()
    experiment = store.client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    for user in CHECKOUTS:
        server.grant(user, "experiment", experiment.experiment_id)
        server.grant(user, "registered_model", OURS)
    logins = {user: server.login(user) for user in CHECKOUTS}
    said = decide_at_once(server.uri, tmp_path / "reviewers", logins)
    assert_one_won(said, store)
    (entry,) = store.ledger.chain(OURS).entries
    assert (entry.who, entry.identity) == (CHECKOUTS[said.index("") // 4], "login")
    assert store.ledger.id == made


def test_person_without_permission_decides_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_model("spam-full", seed=2)
    log_in(server, ADMIN, monkeypatch)
    version, _ = register(Registry(params(server.uri)), "spam-full")
    before = Registry(params(server.uri)).ledger.chain(OURS)
    log_in(server, "reader", monkeypatch)
    store = Registry(params(server.uri))
    assert store.person()[:2] == ("reader", "login")
    with pytest.raises(UserError, match=f"does not let you write to experiment {EXPERIMENT}; nothing was decided"):
        store.promote("spam-full", version.version, version.tags[VERSION], "mine")
    assert store.ledger.chain(OURS) == before
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another password")
    with pytest.raises(UserError, match="refuses the login of this process"):
        identity.present(server.uri, None, {})


def test_version_serves_from_the_server_only_as_the_ledger_says(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promote, load by alias, a click in MLflow, refusal by our loader and by plain MLflow, repair: all over HTTP."""
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "load", lambda: params(server.uri))
    make_model("spam-full", seed=3)
    log_in(server, ADMIN, monkeypatch)
    store = Registry(params(server.uri))
    version, _ = register(store, "spam-full")
    words = ("promote", "spam-full", str(version.version), "--sha256", version.tags[VERSION], "--reason", "better")
    assert tohum(*words) == 0
    uri = f"models:/{OURS}@{CHAMPION}"
    assert mlflow.pyfunc.load_model(uri) is not None
    other = next(v for v in store.versions("spam-full") if v.version != version.version)
    store.client.set_registered_model_alias(OURS, CHAMPION, other.version)
    monkeypatch.setattr("pipeline.registry.store._MOVING", timedelta(0))
    with pytest.raises(UserError, match="without a decision"):
        store.download(uri)
    with pytest.raises(Exception, match="the ledger of decisions says"):
        mlflow.pyfunc.load_model(uri)
    capsys.readouterr()
    assert tohum("registry", "check") == 1
    assert OURS in capsys.readouterr().err
    assert tohum("registry", "check", "--repair") == 0
    assert mlflow.pyfunc.load_model(uri) is not None
    assert tohum("ledger", "spam-full") == 0
    assert f"approve version {version.version} by {ADMIN} (login): better" in capsys.readouterr().out
