"""Decisions on a real store: the ledger decides who is champion, and no loader takes an alias that says otherwise."""

import functools
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

from pipeline import config, files
from pipeline.config.params import Params
from pipeline.config.review import Signing
from pipeline.errors import UserError
from pipeline.registry import (
    APPROVED,
    CANDIDATE,
    CHAMPION,
    MODEL,
    VERSION,
    Registry,
    admission,
    anchors,
    dossier,
    ledger,
    signing,
)
from pipeline.registry.identity import Person
from pipeline.registry.ledger_store import EXPERIMENT, LostError
from tests.commands import tohum
from tests.registries import make_model, params, register

ADA, GRACE = Person("ada", "login"), Person("grace", "login")
OURS, FOREIGN = "tohum-spam-full", "fraud"
NOT_MET = {
    "outcome": "not met",
    "rules": [
        {"rule": "risks", "state": "fail", "sentence": "canaries are extracted"},
        {"rule": "gates", "state": "pass", "sentence": "all gates passed"},
    ],
}


def here() -> Params:
    """The params of the working folder; absolute, because MLflow keeps one store per address for the whole process."""
    return params(f"sqlite:///{Path.cwd()}/mlflow.db")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A git repository with a store: three versions of a model of ours, three of a foreign one logged by hand."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("decisions")
    os.chdir(folder)
    git("init", "--quiet")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "first")
    store = Registry(here())
    for seed in (1, 2, 3):
        make_model("spam-full", seed=seed)
        register(store, "spam-full")
        log_foreign(store, seed)
    yield store
    os.chdir(before)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def log_foreign(store: Registry, seed: int) -> None:
    """A scikit-learn model as somebody registers it without this project."""
    import mlflow
    from sklearn.linear_model import LinearRegression

    mlflow.set_experiment("elsewhere")
    fitted = LinearRegression().fit([[0.0], [1.0]], [0.0, float(seed)])
    with mlflow.start_run():
        mlflow.log_metric("rmse", 0.1 * seed)
        mlflow.sklearn.log_model(
            fitted, name="model", registered_model_name=FOREIGN, serialization_format="skops",
            pip_requirements=["scikit-learn"],
        )  # fmt: skip


@pytest.fixture
def store(project: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The store without any decision: a ledger of its own for each test."""
    monkeypatch.setattr(config, "load", here)
    monkeypatch.setattr("pipeline.registry.store._MOVING", timedelta(0))
    client = project.client
    for name in (OURS, FOREIGN):
        for alias in client.get_registered_model(name).aliases:
            client.delete_registered_model_alias(name, alias)
        for version in client.search_model_versions(f"name = '{name}'"):
            for tag in (APPROVED, "tohum.status", "tohum.decision"):
                if tag in version.tags:
                    client.delete_model_version_tag(name, version.version, tag)
    client.set_registered_model_alias(OURS, CANDIDATE, "3")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        client.rename_experiment(experiment.experiment_id, f"before-{datetime.now(UTC).timestamp()}")
    subprocess.run(["git", "update-ref", "-d", anchors.REF], capture_output=True, check=False)
    return Registry(here())


@functools.cache
def hash_of(name: str, version: int) -> str:
    store = Registry(here())
    return store.verify(store.find(f"models:/{name}/{version}")).version_sha256


def approve(store: Registry, name: str, version: int, why: str = "good", **more: Any) -> Any:
    """An approval as a person gives it; a version of ours is the candidate before."""
    if name == OURS:
        store.client.set_registered_model_alias(OURS, CANDIDATE, str(version))
    return store.promote(f"models:/{name}", str(version), hash_of(name, version), why, **more)


def champion_of(store: Registry, name: str) -> str:
    """The number of the version that our loader gives."""
    version = store.champion(f"models:/{name}")
    assert version is not None
    store.download(f"models:/{name}@{CHAMPION}")
    return str(version.version)


@pytest.mark.parametrize("name", [OURS, FOREIGN])
def test_decisions_are_entries_with_person_reason_and_figures(store: Registry, name: str) -> None:
    approve(store, name, 1, "iyi: ğ", by=ADA)
    store.reject(f"models:/{name}", "2", "worse", by=GRACE)
    approve(store, name, 3, "better", by=GRACE, policy={"outcome": "met", "rules": []})
    assert champion_of(store, name) == "3"
    back = store.rollback(f"models:/{name}", "false alarms", by=ADA)
    assert champion_of(store, name) == str(back.version) == "1"
    chain = store.ledger.chain(name)
    assert chain.problems == ()
    assert [(e.action, e.version, e.who, e.why) for e in chain.entries] == [
        ("approve", "1", "ada", "iyi: ğ"),
        ("reject", "2", "grace", "worse"),
        ("approve", "3", "grace", "better"),
        ("roll back", "1", "ada", "false alarms"),
    ]
    third = chain.entries[2]
    assert third.version_sha256 == hash_of(name, 3)
    assert third.policy == {"outcome": "met", "rules": []}
    if name == OURS:
        assert third.evaluated_sha256 == files.sha256_of(Path("models/spam-full"))
        assert third.figures == {"accuracy": 0.75, "loss_nats": 0.5}
    else:
        assert third.evaluated_sha256 is None
        assert third.figures == pytest.approx({"rmse": 0.3})
    versions = {str(v.version): v for v in store.client.search_model_versions(f"name = '{name}'")}
    assert versions["1"].tags["tohum.decision"].startswith("champion again by ada (login), ")
    assert versions["2"].tags["tohum.status"].startswith("rejected ")
    assert versions["3"].tags["tohum.status"].startswith("retired ")
    assert versions["1"].description.startswith("**Decision 4**: champion again by ada (login)")
    assert versions["1"].description.count("**Decision") == 1


@pytest.mark.parametrize("name", [OURS, FOREIGN])
def test_loader_and_check_refuse_hand_moved_aliases(
    store: Registry, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty of each kind of model: 20 of 20 are not served, named, and put back."""
    approve(store, name, 1)
    approve(store, name, 2)
    client, uri = store.client, f"models:/{name}@{CHAMPION}"

    def set_to(version: str) -> None:
        client.set_registered_model_alias(name, CHAMPION, version)

    def remove() -> None:
        client.delete_registered_model_alias(name, CHAMPION)

    def remove_and_set() -> None:
        remove()
        set_to("3")

    moves: list[Callable[[], None]] = [lambda: set_to("1"), lambda: set_to("3"), remove, remove_and_set]
    for number in range(20):
        moves[number % len(moves)]()
        with pytest.raises(UserError, match="without a decision, the ledger says version 2"):
            store.download(uri)
        assert set(store.check()) == {name}
        store.repair(f"models:/{name}")
        assert store.check() == {}
    assert champion_of(store, name) == "2"
    capsys.readouterr()
    moves[1]()
    assert tohum("registry", "check") == 1
    assert f"error: {name}: champion was moved to version 3 without a decision" in capsys.readouterr().err
    assert tohum("registry", "check", "--repair") == 0
    assert "put back: version 2 is the champion" in capsys.readouterr().out
    assert tohum("registry", "check") == 0


def test_pyfunc_refuses_a_hand_moved_alias(store: Registry) -> None:
    """Plain MLflow loads it by the alias; the version's own entry file asks the ledger."""
    import mlflow

    approve(store, OURS, 1)
    uri = f"models:/{OURS}@{CHAMPION}"
    assert mlflow.pyfunc.load_model(uri) is not None
    store.client.set_registered_model_alias(OURS, CHAMPION, "2")
    with pytest.raises(Exception, match=r"alias champion points to version 2, the ledger of decisions says 1"):
        mlflow.pyfunc.load_model(uri)
    assert mlflow.pyfunc.load_model(f"models:/{OURS}/3") is not None  # by its number any version may be tried
    store.repair(OURS)
    approve(store, OURS, 3)
    store.rollback(OURS, "worse")
    assert mlflow.pyfunc.load_model(uri) is not None


def test_promote_needs_a_reason_of_its_own_where_the_policy_is_not_met(store: Registry) -> None:
    with pytest.raises(
        UserError, match=r"the policy is not met: canaries are extracted; nothing was changed.*--despite"
    ):
        approve(store, OURS, 1, policy=NOT_MET)
    with pytest.raises(UserError, match="--reason is empty"):
        approve(store, OURS, 1, "  ")
    assert store.ledger.chain(OURS).entries == ()
    approve(store, OURS, 1, policy=NOT_MET, despite="a demonstration without data of people")
    (entry,) = store.ledger.chain(OURS).entries
    assert entry.despite == "a demonstration without data of people"
    assert entry.policy == NOT_MET
    approve(store, OURS, 2, policy={"outcome": "person decides", "rules": []})


def test_promote_refuses_a_rejected_version_and_the_champion_itself(store: Registry) -> None:
    approve(store, OURS, 1)
    with pytest.raises(UserError, match="version 1 is the champion already"):
        approve(store, OURS, 1)
    with pytest.raises(UserError, match="is the champion; roll back first"):
        store.reject(OURS, "1", "worse")
    store.reject(OURS, "2", "rude answers", by=ADA)
    with pytest.raises(UserError, match=r"it was rejected by ada, .*: rude answers; nothing was changed"):
        approve(store, OURS, 2)
    approve(store, OURS, 2, despite="the answers were of another model")
    assert champion_of(store, OURS) == "2"


def test_append_lets_one_of_two_decisions_on_the_same_head_win(store: Registry) -> None:
    """Both have read the ledger before either writes: the second is told and changes nothing."""
    approve(store, OURS, 1, by=ADA)
    late, chain = Registry(here()), store.ledger.intact(OURS)
    late.ledger.intact = lambda model: chain  # type: ignore[method-assign]
    approve(store, OURS, 2, by=ADA)
    store.client.set_registered_model_alias(OURS, CANDIDATE, "3")
    with pytest.raises(
        LostError, match=r"entry 2 of the ledger is the approval of version 2 by ada, .*nothing was changed"
    ):
        late.promote(OURS, "3", hash_of(OURS, 3), "mine", by=GRACE)
    assert champion_of(store, OURS) == "2"


def test_champion_is_taken_while_its_writer_moves_the_alias_and_refused_when_it_never_did(
    store: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion that was killed between entry and alias is named, and repaired by anybody."""
    approve(store, OURS, 1)
    killed = Registry(here())
    monkeypatch.setattr(killed, "follow", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        approve(killed, OURS, 2)
    with pytest.raises(
        UserError, match="champion was moved to version 1 without a decision, the ledger says version 2"
    ):
        store.champion(OURS)
    monkeypatch.setattr("pipeline.registry.store._MOVING", timedelta(minutes=5))
    meanwhile = SimpleNamespace(sleep=lambda seconds: store.repair(OURS))
    monkeypatch.setattr("pipeline.registry.store.time", meanwhile)
    assert champion_of(store, OURS) == "2"


def test_adopt_takes_a_champion_from_before_the_ledger_by_a_command(
    store: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    client = store.client
    client.set_registered_model_alias(OURS, CHAMPION, "1")
    with pytest.raises(UserError, match="approved was none; promote it"):
        store.adopt(OURS, "old")
    client.set_model_version_tag(OURS, "1", APPROVED, hash_of(OURS, 1))
    with pytest.raises(UserError, match=r"the ledger holds no approval of it; .*tohum registry adopt"):
        store.download(f"models:/{OURS}@{CHAMPION}")
    assert tohum("registry", "adopt", "spam-full", "--reason", "approved in March") == 0
    assert champion_of(store, OURS) == "1"
    (entry,) = store.ledger.chain(OURS).entries
    assert (entry.action, entry.version, entry.why) == ("adopt", "1", "approved in March")
    with pytest.raises(UserError, match="the ledger has a champion; the alias is right"):
        store.adopt(OURS, "again")
    assert tohum("registry", "adopt") == tohum("registry", "check", "--reason", "x") == 2
    with pytest.raises(UserError, match=f"{FOREIGN}: no champion to adopt"):
        store.adopt(f"models:/{FOREIGN}", "none")
    client.set_registered_model_alias(FOREIGN, CHAMPION, "2")
    assert tohum("registry", "check", "--repair") == 1  # an alias that nobody approved is not put anywhere
    assert f"{FOREIGN}: the ledger has no champion to put back" in capsys.readouterr().err


DAMAGE = {
    "edit": "UPDATE params SET value = replace(value, 'good', 'bad') WHERE key LIKE '%/000002'",
    "figures": "UPDATE params SET value = replace(value, '0.75', '0.99') WHERE key LIKE '%/seen/%'",
    "drop": "DELETE FROM params WHERE key LIKE '%/000002'",
    "cut off": "DELETE FROM params WHERE key LIKE '%/000003'",
    "cut off at the start": "DELETE FROM params WHERE key LIKE '%/00000_'",
    "reorder": "",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_ledger_and_loader_find_damage_in_the_database(
    store: Registry, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Written past MLflow, into its tables; the heads are in git's notes."""
    for version in (1, 2, 3):
        approve(store, OURS, version)
    assert tohum("ledger", "spam-full") == 0
    assert "noted in refs/notes/tohum-ledger of this repository: all" in capsys.readouterr().out
    if damage == "reorder":  # the primary key allows no two rows of one name in between
        _swap(store.ledger.id)
    else:
        with sqlite3.connect("mlflow.db") as database:
            assert database.execute(f"{DAMAGE[damage]} AND run_uuid = ?", (store.ledger.id,)).rowcount
    assert tohum("ledger", "spam-full") == 1
    assert f"error: {OURS}: entry" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"the ledger at .* is damaged: entry"):
        Registry(here()).download(f"models:/{OURS}@{CHAMPION}")
    with pytest.raises(UserError, match="is damaged"):
        approve(store, OURS, 1)
    assert OURS in store.check()


def _swap(run: str) -> None:
    one, two = ledger.entry_key(OURS, 1), ledger.entry_key(OURS, 2)
    with sqlite3.connect("mlflow.db") as database:
        for old, new in ((one, "aside"), (two, one), ("aside", two)):
            database.execute("UPDATE params SET key = ? WHERE key = ? AND run_uuid = ?", (new, old, run))


def test_ledger_says_what_this_repository_has_not_noted(store: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("ledger", "spam-full") == 0
    assert "no decision yet" in capsys.readouterr().out
    approve(store, OURS, 1)
    git("update-ref", "-d", anchors.REF)
    assert tohum("ledger", "spam-full") == 0
    assert "up to entry 0 of 1; only noted entries are protected" in capsys.readouterr().out
    other = store.ledger.chain(OURS).entries[0]
    assert anchors.add("another", other) == ""
    assert tohum("ledger", "spam-full") == 0
    assert "also notes decisions of another ledger (another)" in capsys.readouterr().out


def test_decision_outside_git_prints_the_head_to_keep(
    store: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    approve(store, OURS, 1)
    shown = capsys.readouterr().err
    assert store.ledger.chain(OURS).head in shown
    assert "keep this line outside MLflow, it was not noted in git: " in shown


def test_deleted_ledger_is_named_and_not_begun_anew(store: Registry) -> None:
    """Lost otherwise: whoever deletes it starts an empty one, and the next champion has no history."""
    approve(store, OURS, 1)
    experiment = store.client.get_experiment_by_name(EXPERIMENT).experiment_id
    store.client.delete_experiment(experiment)
    with pytest.raises(UserError, match=r"was deleted or has lost its tag .*restore it"):
        Registry(here()).download(f"models:/{OURS}@{CHAMPION}")
    store.client.restore_experiment(experiment)
    store.client.delete_run(store.ledger.id)
    with pytest.raises(UserError, match=r"was deleted; restore it .mlflow runs restore"):
        Registry(here()).champion(OURS)
    store.client.restore_run(store.ledger.id)
    assert champion_of(store, OURS) == "1"


def test_promote_of_a_foreign_model_needs_the_hash_over_its_files(store: Registry) -> None:
    with pytest.raises(UserError, match=f"{FOREIGN} version 1: {VERSION} is [0-9a-f]{{64}}, approved was 00"):
        store.promote(f"models:/{FOREIGN}", "1", "0" * 64, "good")
    approve(store, FOREIGN, 1)
    folder = store.download(f"models:/{FOREIGN}@{CHAMPION}")
    assert (folder / "MLmodel").is_file()
    stored = next(
        path for path in Path("mlruns").rglob("MLmodel") if path.read_bytes() == (folder / "MLmodel").read_bytes()
    )
    good = stored.read_bytes()
    stored.write_bytes(good + b"\n")
    try:
        with pytest.raises(UserError, match=f"{FOREIGN} version 1: {VERSION} is .*, approved was"):
            store.download(f"models:/{FOREIGN}@{CHAMPION}")
    finally:
        stored.write_bytes(good)


def with_review(**changed: Any) -> Params:
    """The project's params with other settings of the review."""
    found = here()
    return found.model_copy(update={"review": found.review.model_copy(update=changed)})


def new_key(path: Path) -> Path:
    """A private key as ssh-keygen writes it."""
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path


def test_identity_verified_needs_a_proof_of_the_person_to_decide_and_to_load(
    store: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve(store, OURS, 1)
    strict = Registry(with_review(identity="verified"))
    with pytest.raises(UserError, match=r"needs a proof of who decides: .*then decide by a command"):
        approve(strict, OURS, 2)
    with pytest.raises(UserError, match="needs a proof of who decides"):
        strict.person("an answer in Prefect's page")
    with pytest.raises(UserError, match=r"entry 1 of the ledger is by unverified: .*review.identity needs a login"):
        strict.download(f"models:/{OURS}@{CHAMPION}")
    assert "review.identity needs a login or a signature" in strict.check()[OURS]
    key = new_key(tmp_path / "id_ed25519")
    signed = Registry(with_review(identity="verified", signing=Signing(key=str(key))))
    approve(signed, OURS, 2)
    assert champion_of(signed, OURS) == "2"
    entry = store.ledger.chain(OURS).entries[-1]
    assert (entry.identity, bool(entry.signature)) == ("signature", True)
    assert entry.who == signing.fingerprint(entry.key)
    stranger = Registry(with_review(signers={"ada": "ssh-ed25519 AAAA"}))
    with pytest.raises(UserError, match=r"is signed by SHA256:.*, the key of nobody in review.signers"):
        stranger.champion(OURS)


def test_judge_applies_the_policy_to_a_model_of_ours_however_it_is_named(
    store: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: models:/NAME would be a way around the policy."""
    monkeypatch.setattr(dossier, "dossier", lambda registry, model: SimpleNamespace(policy={"model": model}))
    assert store.judge("spam-full") == store.judge(f"models:/{OURS}") == {"model": OURS}
    assert store.judge(f"models:/{FOREIGN}") == {}


def test_champion_is_not_handed_out_from_the_copy_of_another_version_when_its_tags_are_forged(store: Registry) -> None:
    """Both have been downloaded before: a tag must not choose the copy, and the check names the tag."""
    client, uri = store.client, f"models:/{OURS}@{CHAMPION}"
    approve(store, OURS, 2)
    true = store.download(uri)
    other = store.download(f"models:/{OURS}/3")
    assert other != true
    tags = {number: client.get_model_version(OURS, number).tags for number in ("2", "3")}
    try:
        for tag in (MODEL, VERSION):
            client.set_model_version_tag(OURS, "2", tag, tags["3"][tag])
        with pytest.raises(UserError, match=f"{OURS} version 2: its files give"):
            store.download(uri)
        assert f"tag {VERSION} of version 2 is {tags['3'][VERSION]}, approved was" in store.check()[OURS]
        client.set_model_version_tag(OURS, "2", VERSION, tags["2"][VERSION])
        with pytest.raises(UserError, match=f"{OURS} version 2: its files give"):
            store.download(uri)
        assert f"tag {MODEL} of version 2 is {tags['3'][MODEL]}, approved was" in store.check()[OURS]
    finally:
        for tag in (MODEL, VERSION):
            client.set_model_version_tag(OURS, "2", tag, tags["2"][tag])
    assert store.download(uri) == true
    assert store.check() == {}


def test_ledger_of_another_run_is_refused_until_a_person_accepts_it(
    store: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lost otherwise: one forged entry in a new run, and the tag of the experiment pointed at it, make a champion."""
    approve(store, OURS, 1)
    approve(store, OURS, 2)
    old, client = store.ledger.id, store.client
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    forged = client.create_run(experiment).info.run_id
    client.set_experiment_tag(experiment, "tohum.ledger_run", forged)
    first = replace(
        store.ledger.chain(OURS).entries[0], version="3", version_sha256=hash_of(OURS, 3), why="forged", hash=""
    ).sealed()
    later = Registry(params())
    later.ledger.append(first)
    client.set_registered_model_alias(OURS, CHAMPION, "3")
    with pytest.raises(UserError, match=f"notes decisions on it in ledger {old}, .*--accept {old}"):
        later.champion(OURS)
    assert old in later.check()[OURS]
    assert tohum("ledger", "spam-full") == 1
    assert f"error: {OURS}: this repository notes decisions on it in ledger {old}" in capsys.readouterr().err
    assert tohum("ledger", "spam-full", "--accept", old) == 2
    with pytest.raises(UserError, match=f"ledger nobody is not in the way; to accept: {old}"):
        tohum("ledger", "spam-full", "--accept", "nobody", "--reason", "x")
    assert tohum("ledger", "spam-full", "--accept", old, "--reason", f"moved\n{old} accepts x y") == 0
    assert champion_of(Registry(params()), OURS) == "3"
    assert f"{old} accepts" not in [line[: len(old) + 8] for line in git("log", "-p", anchors.REF).splitlines()]


def test_ledger_that_was_renamed_away_is_not_begun_anew(store: Registry) -> None:
    approve(store, OURS, 1)
    old = store.ledger.id
    experiment = store.client.get_experiment_by_name(EXPERIMENT).experiment_id
    store.client.rename_experiment(experiment, f"aside-{old}")
    with pytest.raises(UserError, match=rf"in ledger {old}, and this store's ledger \(there is none\)"):
        approve(Registry(params()), OURS, 2)
    assert old in Registry(params()).check()[OURS]
    assert tohum("ledger", "spam-full", "--accept", old, "--reason", "a new store") == 0
    fresh = Registry(params())
    approve(fresh, OURS, 2)
    assert champion_of(fresh, OURS) == "2"


def test_rollback_needs_a_reason_of_its_own_where_the_version_was_rejected_since(store: Registry) -> None:
    approve(store, OURS, 1)
    approve(store, OURS, 2)
    store.reject(OURS, "1", "leaks names", by=ADA)
    with pytest.raises(UserError, match=r"version 1: it was rejected by ada, .*: leaks names; nothing was changed"):
        store.rollback(OURS, "false alarms")
    assert champion_of(store, OURS) == "2"
    assert tohum("rollback", "spam-full", "--reason", "false alarms", "--despite", "the names were invented") == 0
    assert champion_of(store, OURS) == "1"
    assert store.ledger.chain(OURS).entries[-1].despite == "the names were invented"


def test_pyfunc_compares_the_approved_hash_and_refuses_where_it_may_not_read_the_ledger(
    store: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1 with other files than the approved ones; then a reader without READ; then a store that is down."""
    import mlflow

    uri = f"models:/{OURS}@{CHAMPION}"
    approve(store, OURS, 1)
    assert mlflow.pyfunc.load_model(uri) is not None
    key = ledger.entry_key(OURS, 1)
    with sqlite3.connect("mlflow.db") as database:
        changed = "UPDATE params SET value = replace(value, ?, ?) WHERE key = ? AND run_uuid = ?"
        assert database.execute(changed, (hash_of(OURS, 1), hash_of(OURS, 2), key, store.ledger.id)).rowcount == 1
    with pytest.raises(
        Exception, match=f"version 1: version_sha256 is {hash_of(OURS, 1)}, approved was {hash_of(OURS, 2)}"
    ):
        mlflow.pyfunc.load_model(uri)

    def answer(code: int) -> Callable[..., Any]:
        def refuse(*_: Any, **__: Any) -> Any:
            raise MlflowException("no", error_code=code)

        return refuse

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", answer(PERMISSION_DENIED))
    with pytest.raises(Exception, match=r"MLflow refuses to show the ledger of decisions .PERMISSION_DENIED."):
        mlflow.pyfunc.load_model(uri)
    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", answer(TEMPORARILY_UNAVAILABLE))
    assert mlflow.pyfunc.load_model(uri) is not None


def test_pyfunc_takes_only_an_entry_whose_author_the_packed_review_settings_take(
    store: Registry, tmp_path: Path
) -> None:
    """A version registered under `identity: verified` with ada's key: refused unverified, and by a foreign key; taken
    by hers; refused once her entry is edited.
    """
    import mlflow

    keys = {name: new_key(tmp_path / name) for name in ("ada", "eve")}
    public = signing.Signer(keys["ada"]).public
    strict = Registry(with_review(identity="verified", signers={"ada": public}))
    make_model("spam-full", seed=4)
    made, _ = strict.register(admission.admit("spam-full", strict.params), Path("models/spam-full"))
    version = int(made.version)
    uri = f"models:/{OURS}@{CHAMPION}"
    approve(store, OURS, version, by=Person("unverified: root", "unverified"))
    with pytest.raises(Exception, match=r"entry 1 of the ledger is by unverified: root, and review.identity needs"):
        mlflow.pyfunc.load_model(uri)
    for name, expected in (("eve", r"entry 3 of the ledger is signed by SHA256:.*, the key of nobody"), ("ada", None)):
        approve(store, OURS, 1)  # signed by nobody: version 1 was packed with the default settings
        signer = Registry(with_review(signing=Signing(key=str(keys[name]))))
        approve(signer, OURS, version)
        if expected is None:
            assert mlflow.pyfunc.load_model(uri) is not None
        else:
            with pytest.raises(Exception, match=expected):
                mlflow.pyfunc.load_model(uri)
    with sqlite3.connect("mlflow.db") as database:
        changed = "UPDATE params SET value = replace(value, 'good', 'best') WHERE key = ? AND run_uuid = ?"
        key = ledger.entry_key(OURS, 5)
        assert database.execute(changed, (key, store.ledger.id)).rowcount == 1
    with pytest.raises(Exception, match="entry 5 of the ledger was edited: its content does not give its hash"):
        mlflow.pyfunc.load_model(uri)


def test_judge_refuses_another_candidate_than_the_one_decided_on(
    store: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the alias moves between reading and judging, and version 1 is approved by the figures of 2."""
    judged = SimpleNamespace(policy={"outcome": "met"}, candidate=SimpleNamespace(version=2), version_sha256="f" * 64)
    monkeypatch.setattr(dossier, "dossier", lambda registry, model: judged)
    assert store.judge(OURS, "2", "f" * 64) == {"outcome": "met"}
    for version, sha256 in (("1", "f" * 64), ("2", "0" * 64)):
        with pytest.raises(UserError, match=f"candidate became version 2, .* while version {version} was decided on"):
            store.judge(OURS, version, sha256)
    store.client.set_registered_model_alias(OURS, CANDIDATE, "1")
    words = ("promote", "spam-full", "1", "--sha256", hash_of(OURS, 1), "--reason", "good")
    with pytest.raises(UserError, match="candidate became version 2"):
        tohum(*words)
    assert store.ledger.chain(OURS).entries == ()


def test_errors_of_the_store_are_shown_without_credentials(store: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: such a sentence becomes a rule of the policy's result, and the ledger keeps it for good."""
    import mlflow

    def fails(*_: Any, **__: Any) -> Any:
        raise MlflowException("GET http://ada:secret@mlflow:5000/api failed")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.artifacts, "download_artifacts", fails)
        with pytest.raises(
            UserError, match="cannot be read from the store: GET http://mlflow:5000/api failed"
        ) as shown:
            store.verify(store.find(f"models:/{OURS}/1"))
    assert "secret" not in str(shown.value)
    monkeypatch.setattr(store, "follow", fails)
    with pytest.raises(UserError, match=r"does not let this user .* \(GET http://mlflow:5000/api failed\)") as shown:
        approve(store, OURS, 1)
    assert "secret" not in str(shown.value)


def test_alias_moves_before_git_notes_the_entry_and_a_failed_move_is_noted_too(
    store: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git may take a minute; no loader takes a champion between the entry and the alias."""
    seen: list[str | None] = []

    def noted(ledger_id: str, entry: Any) -> str:
        there = store.at(OURS, CHAMPION)
        seen.append(None if there is None else str(there.version))
        return ""

    monkeypatch.setattr(anchors, "add", noted)
    approve(store, OURS, 1)
    assert seen == ["1"]
    monkeypatch.setattr(store, "follow", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        approve(store, OURS, 2)
    assert seen == ["1", "1"]


@pytest.mark.parametrize("skew", [timedelta(minutes=-2), timedelta(minutes=2)])
def test_champion_waits_for_a_writer_whose_clock_differs(
    store: Registry, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    """The reader waits by its own clock: the entry may be of a later time, or some minutes old."""
    approve(store, OURS, 1)
    killed = Registry(params())
    monkeypatch.setattr(killed, "follow", lambda name: (_ for _ in ()).throw(KeyboardInterrupt))

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Shifted":
            return cls.fromtimestamp((datetime.now(UTC) + skew).timestamp(), tz)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.registry.decisions.datetime", Shifted)
        with pytest.raises(KeyboardInterrupt):
            approve(killed, OURS, 2)
    monkeypatch.setattr("pipeline.registry.store._MOVING", timedelta(seconds=30))
    monkeypatch.setattr("pipeline.registry.store.time", SimpleNamespace(sleep=lambda seconds: store.repair(OURS)))
    assert champion_of(store, OURS) == "2"
