"""Stores that moved, or are behind a server with another disk: every version is found and checked."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline import files
from pipeline.errors import UserError
from pipeline.inference import predictor
from pipeline.registry import CANDIDATE, CHAMPION, MODEL, VERSION, Registry
from pipeline.tracking import artifact_location
from tests.registries import ROOT, make_model, params, register
from tests.tracking.test_sender import free_port, kill, serve

HTTP = "http://127.0.0.1:5000"


def test_new_experiment_records_no_path_in_an_embedded_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert artifact_location.for_new_experiments("sqlite:///mlflow.db") == "mlflow-artifacts:/"
    assert artifact_location.for_new_experiments(HTTP) is None
    assert artifact_location.folder_of("sqlite:///mlflow.db") == tmp_path / "mlartifacts"
    assert artifact_location.folder_of("sqlite:////srv/a/mlflow.db?timeout=9") == Path("/srv/a/mlartifacts")
    assert artifact_location.folder_of(HTTP) is None


def test_resolve_finds_the_files_when_the_store_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded path is used as it stands while its folder is there; else what lies behind `mlartifacts/` is."""
    here = tmp_path / "Ayşe's project"
    here.mkdir()
    monkeypatch.chdir(here)
    local = "sqlite:///mlflow.db"
    assert artifact_location.resolve("mlflow-artifacts:/m/a%20b", local) == (here / "mlartifacts/m/a b").as_uri()
    gone = "file:///gone/mlartifacts/mlartifacts/models/m-1/artifacts"
    assert artifact_location.resolve(gone, local) == (here / "mlartifacts/models/m-1/artifacts").as_uri()
    assert artifact_location.resolve(gone, HTTP) == "mlflow-artifacts:/models/m-1/artifacts"
    assert artifact_location.resolve("mlflow-artifacts:/m", HTTP) == "mlflow-artifacts:/m"
    there = tmp_path / "other/mlartifacts"
    there.mkdir(parents=True)
    for uri in (local, HTTP):
        assert artifact_location.resolve(f"{there.as_uri()}/m", uri) == f"{there.as_uri()}/m"
        for other in ("s3://bucket/mlartifacts/m", "file:///gone/elsewhere/m"):
            assert artifact_location.resolve(other, uri) == other
    (here / "mlartifacts/m").mkdir(parents=True)  # a copied project reads its own copy, not the original
    assert artifact_location.resolve(f"{there.as_uri()}/m", local) == (here / "mlartifacts/m").as_uri()


@pytest.mark.parametrize("path", ["/../../etc", "/a/%2e%2e/%2e%2e/b"])
def test_resolve_refuses_a_location_outside_the_store(path: str) -> None:
    with pytest.raises(UserError, match="leaves"):
        artifact_location.resolve(f"mlflow-artifacts:{path}", "sqlite:///mlflow.db")


def embedded(folder: Path) -> str:
    """The folder's own store; absolute, because SQLite refuses a connection that was open while its file moved."""
    return f"sqlite:///{folder}/mlflow.db"


def at(folder: Path, uri: str = "") -> Registry:
    """The registry as a process in `folder` opens it."""
    os.chdir(folder)
    return Registry(params(uri or embedded(folder)))


def use(store: Registry, model: str, folder: Path) -> None:
    """Reviews, verifies, promotes, downloads, starts, exports and loads the candidate in `folder`."""
    import mlflow

    candidate = store.at(model, CANDIDATE)
    assert candidate is not None
    assert f"--sha256 {candidate.tags[VERSION]}" in store.review(model)
    assert store.verify(candidate).version_sha256 == candidate.tags[VERSION]
    champion = store.at(model, CHAMPION)
    if champion is None or champion.version != candidate.version:  # the same decision is made once
        store.promote(model, candidate.version, candidate.tags[VERSION], "reviewed")
    downloaded = store.download(f"models:/tohum-{model}@{CHAMPION}")
    assert files.sha256_of(downloaded) == candidate.tags[MODEL]
    assert str(downloaded) in store.start(model)
    store.export(model, folder / f"exported-{model}")
    expected = predictor.answer(downloaded, ["free prize", "ı"])
    table = pd.DataFrame({"text": ["free prize", "ı"]})
    for uri in (f"models:/tohum-{model}@{CHAMPION}", str(folder / f"exported-{model}")):
        rows = mlflow.pyfunc.load_model(uri).predict(table).to_dict("records")
        assert [{key: row[key] for key in answer} for row, answer in zip(rows, expected, strict=True)] == expected


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with registered models in two experiments (one as earlier versions made it), renamed afterwards."""
    import mlflow

    before, folder = Path.cwd(), tmp_path_factory.mktemp("moved")
    project = folder / "first place"
    project.mkdir()
    store = at(project)
    for name in ("base", "spam-full"):
        make_model(name)
    register(store, "spam-full")
    client = mlflow.MlflowClient(embedded(project))
    client.create_experiment("earlier", artifact_location=(project / "mlartifacts").as_uri())
    earlier = params(embedded(project))
    tracking = earlier.runtime.tracking.model_copy(update={"experiment": "earlier"})
    earlier = earlier.model_copy(update={"runtime": earlier.runtime.model_copy(update={"tracking": tracking})})
    register(Registry(earlier), "base")
    assert "first place" in str(client.get_model_version_download_uri("tohum-base", "1")).replace("%20", " ")
    assert client.get_model_version_download_uri("tohum-spam-full", "1").startswith("mlflow-artifacts:/models/")
    os.chdir(folder)
    project.rename(folder / "second place")
    shutil.rmtree(folder / "second place/.tohum")  # nothing cached helps
    yield folder / "second place"
    os.chdir(before)


@pytest.mark.parametrize("model", ["spam-full", "base"])
def test_download_works_when_the_project_was_moved(moved: Path, model: str, tmp_path: Path) -> None:
    """Also one whose store recorded absolute paths; nothing is made again under the old path."""
    use(at(moved), model, tmp_path)
    assert not (moved.parent / "first place").exists()


def test_sender_and_register_work_when_the_project_was_moved(moved: Path) -> None:
    import mlflow

    store = at(moved)
    client = mlflow.MlflowClient(embedded(moved))
    run = client.create_run(str(client.get_experiment_by_name("earlier").experiment_id))
    client.log_text(run.info.run_id, "İzmir", "note.txt")
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt") == "İzmir"
    assert not (moved.parent / "first place").exists()
    make_model("base", seed=2)
    version, new = register(store, "base")
    assert new
    store.verify(version)


@pytest.fixture(scope="module")
def server(moved: Path) -> Iterator[str]:
    """`tohum ui` in the moved project: its store records a path that exists nowhere any more."""
    port = free_port()
    process = serve("sqlite:///mlflow.db", port, moved)
    yield f"http://127.0.0.1:{port}"
    kill(process)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["spam-full", "base"])
def test_client_works_when_the_server_has_another_disk(server: str, model: str, tmp_path: Path) -> None:
    use(at(tmp_path, server), model, tmp_path)


@pytest.mark.slow
def test_version_from_the_server_is_read_through_it_and_from_its_folder(
    server: str, moved: Path, tmp_path: Path
) -> None:
    """The server's proxy stores the files; the project that owns the store reads the same ones without it."""
    store = at(tmp_path, server)
    make_model("chat-full")
    version, new = register(store, "chat-full")
    assert new
    use(store, "chat-full", tmp_path)
    assert at(moved).verify(version).version_sha256 == version.tags[VERSION]


@pytest.mark.slow
def test_verify_refuses_a_file_replaced_through_the_server(server: str, moved: Path, tmp_path: Path) -> None:
    """Seen: card, metrics and code replaced with one request each; review showed them and promote took them."""
    store = at(tmp_path, server)
    make_model("chat-full", seed=3)
    version, _ = register(store, "chat-full")
    place = store.client.get_model_version_download_uri(version.name, version.version)
    name = f"{place.removeprefix('mlflow-artifacts:/')}/metrics.json"
    good = (moved / "mlartifacts" / name).read_bytes()
    for data in (b'{"accuracy": 0.99}', good):
        request = urllib.request.Request(f"{server}/api/2.0/mlflow-artifacts/artifacts/{name}", data, method="PUT")
        urllib.request.urlopen(request, timeout=60).close()
        if data != good:
            for call in (
                lambda: store.review("chat-full"),
                lambda: store.promote("chat-full", version.version, version.tags[VERSION], "reviewed"),
                lambda: store.download(f"models:/tohum-chat-full/{version.version}"),
            ):
                with pytest.raises(UserError, match=r"metrics\.json has sha256"):
                    call()
    assert store.verify(version).version_sha256 == version.tags[VERSION]


@pytest.mark.slow
def test_mlflow_loads_a_version_through_the_server(server: str, tmp_path: Path) -> None:
    """No code of ours but the version's own: what a colleague with nothing but MLflow does."""
    code = (
        "import mlflow, pandas; model = mlflow.pyfunc.load_model('models:/tohum-spam-full@candidate')\n"
        "import pipeline; table = pandas.DataFrame({'text': ['free prize']})\n"
        "print(pipeline.__file__, model.predict(table)['label'][0])"
    )
    environment: dict[str, Any] = os.environ | {"MLFLOW_TRACKING_URI": server}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    place, label = done.stdout.split()[-2:]
    assert not place.startswith(str(ROOT))
    assert label in ("ham", "spam")
