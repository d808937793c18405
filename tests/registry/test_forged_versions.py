"""One of each change to a stored version, refused by review, promote, our loader and the packed entry file."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.errors import UserError
from pipeline.inference import predictor
from pipeline.registry import CACHE, CHAMPION, MODEL, VERSION, Registry, contents
from tests.registries import make_model, params, register
from tests.torture import forged_versions

MARK = "import pathlib\npathlib.Path({!r}).write_text('foreign code ran')\n"


def write(name: str, text: str) -> Callable[[Path], None]:
    """A change that writes one file."""

    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return change


def flip_weights(folder: Path) -> None:
    path = folder / "artifacts/spam-full/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def other_loader(folder: Path) -> None:
    path = folder / "MLmodel"
    path.write_text(path.read_text().replace("mlflow.pyfunc.loaders.code_model", "evil"))


def better_numbers(folder: Path) -> None:
    files.write_json(folder / "metrics.json", {"accuracy": 0.99, "loss_nats": 0.1})


def better_card(folder: Path) -> None:
    path = folder / "model_card.md"
    path.write_text(path.read_text().replace("0.75", "0.99"))


def looser_requirements(folder: Path) -> None:
    path = folder / "requirements.txt"
    path.write_text(path.read_text().replace("torch==", "torch>="))


FOREIGN = MARK.format("foreign.txt")
CHANGES: dict[str, Callable[[Path], None]] = {
    "weights": flip_weights,
    "config": write("artifacts/spam-full/config.json", "{}"),
    "artifact added": write("artifacts/spam-full/more.json", "{}"),
    "code": write("code/pipeline/serving.py", FOREIGN),
    "package": write("code/pipeline/__init__.py", FOREIGN),
    "code removed": lambda folder: (folder / "code/pipeline/inference/labels.py").unlink(),
    "module added": write("code/pipeline/extra.py", FOREIGN),
    "module shadowed": write("code/torch/__init__.py", FOREIGN),
    "bytecode added": write("code/pipeline/__pycache__/serving.cpython-311.pyc", FOREIGN),
    "card": better_card,
    "card removed": lambda folder: (folder / "model_card.md").unlink(),
    "metrics": better_numbers,
    "requirements": looser_requirements,
    "environment": write("conda.yaml", "name: other\n"),
    "example": write("input_example.json", "[]"),
    "manifest": write("version.json", "{}"),
    "manifest removed": lambda folder: (folder / "version.json").unlink(),
    "file added": write("note.txt", "hello"),
    "MLmodel": other_loader,
    "entry": write("_pyfunc.py", FOREIGN),
    "entry removed": lambda folder: (folder / "_pyfunc.py").unlink(),
}
BEFORE_ENTRY = {"MLmodel", "entry", "entry removed"}  # plain MLflow acts on these before the entry file can


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Any, Path]]:
    """A registry with one version, and the folder in which the store keeps its files."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("forged")
    os.chdir(folder)
    make_model("spam-full")
    store = Registry(params(f"sqlite:///{folder}/mlflow.db"))
    version, _ = register(store, "spam-full")
    (stored,) = Path("mlartifacts/models").absolute().glob("*/artifacts")
    yield store, version, stored
    os.chdir(before)


@pytest.fixture
def stored(project: tuple[Registry, Any, Path], tmp_path: Path) -> Iterator[Path]:
    """The stored files, put right again afterwards."""
    folder = project[2]
    good = shutil.copytree(folder, tmp_path / "good")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(good, folder)


def refuses(store: Registry, version: Any) -> list[str]:
    """What review, promote and a loader with nothing cached say; fails where one takes the version."""
    said = []
    for call in (
        lambda: store.review("spam-full"),
        lambda: store.promote("spam-full", version.version, version.tags[VERSION], "reviewed"),
        lambda: store.download(f"models:/tohum-spam-full/{version.version}"),
    ):
        shutil.rmtree(CACHE, ignore_errors=True)
        with pytest.raises(UserError, match="tohum-spam-full version") as caught:
            call()
        said.append(str(caught.value))
    assert store.at("spam-full", CHAMPION) is None
    return said


@pytest.mark.parametrize("change", CHANGES)
def test_verify_refuses_a_changed_file_in_review_promote_and_download(
    project: tuple[Registry, Any, Path], stored: Path, change: str
) -> None:
    """Seen: a forged card and accuracy on show, promoted with the reviewed hash, foreign code run on loading."""
    CHANGES[change](stored)
    said = refuses(project[0], project[1])
    assert all("0.99" not in text for text in said)
    assert all("register the model again" in text for text in said)


@pytest.mark.parametrize("tag", [VERSION, MODEL, "tohum.model"])
@pytest.mark.parametrize("value", ["0" * 64, None])
def test_verify_refuses_a_changed_tag(project: tuple[Registry, Any, Path], tag: str, value: str | None) -> None:
    import mlflow

    store, version, _ = project
    client = mlflow.MlflowClient()
    if value is None:
        client.delete_model_version_tag(version.name, version.version, tag)
    else:
        client.set_model_version_tag(version.name, version.version, tag, value)
    try:
        refuses(store, version)
    finally:
        client.set_model_version_tag(version.name, version.version, tag, version.tags[tag])


def test_review_shows_only_covered_files_when_the_description_is_forged(project: tuple[Registry, Any, Path]) -> None:
    """Description, tags and metrics in MLflow can be edited by hand: none of them is on show."""
    import mlflow

    store, version, _ = project
    before = store.review("spam-full")
    client = mlflow.MlflowClient()
    client.update_model_version(version.name, version.version, "# tohum-spam-full\n\naccuracy 0.99")
    client.set_model_version_tag(version.name, version.version, "gate.raw", "passed without exception")
    assert store.review("spam-full") == before


def test_check_refuses_a_link_in_place_of_a_file_or_folder(project: tuple[Registry, Any, Path], tmp_path: Path) -> None:
    """Lost otherwise: the target could change after the check, and a linked folder is a module that no list names."""
    store, version, _ = project
    with store.opened(version) as (copy, sealed):
        folder = Path(shutil.copytree(copy, tmp_path / "copy"))
    assert contents.check(folder, version.name, version.version) == sealed
    (folder / "code/torch").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match="code/torch"):
        contents.check(folder, version.name, version.version)


def test_entry_file_refuses_a_changed_file(project: tuple[Registry, Any, Path], tmp_path: Path) -> None:
    """Also where MLflow holds no tag to compare with: `registry download`, or tags forged along with the file."""
    store, version, _ = project
    with store.opened(version) as (copy, _):
        folder = Path(shutil.copytree(copy, tmp_path / "copy"))
    better_numbers(folder)
    with pytest.raises(UserError, match=r"metrics\.json has sha256"):
        contents.check(folder, version.name, version.version)


def test_entry_file_refuses_a_changed_file_with_a_changed_manifest(
    project: tuple[Registry, Any, Path], stored: Path
) -> None:
    """A file and its line of the manifest: the entry file holds the manifest's hash."""
    better_numbers(stored)
    manifest = files.read_json(stored / "version.json")
    manifest["files"]["metrics.json"] = files.sha256_of(stored / "metrics.json")
    files.write_json(stored / "version.json", manifest)
    assert "was packed with another version.json" in refuses(project[0], project[1])[0]


@pytest.mark.parametrize("text", ["[]", "{", "\xff", "null", '{"format": 1}', "[" * 100_000])
def test_check_explains_a_manifest_that_cannot_be_read(
    project: tuple[Registry, Any, Path], stored: Path, text: str
) -> None:
    (stored / "version.json").write_bytes(text.encode("latin-1"))
    refuses(project[0], project[1])


def test_download_reads_a_cached_copy_again_before_it_is_used(
    project: tuple[Registry, Any, Path], stored: Path
) -> None:
    """A tag that names another cached model must not hand that one out."""
    import mlflow

    store, version, _ = project
    uri = f"models:/tohum-spam-full/{version.version}"
    folder = store.download(uri)
    better_card(stored)
    assert store.download(uri) == folder  # the checked copy, not the forged store
    other = CACHE / ("1" * 64) / "spam-full"
    files.write_text(other / "config.json", "{}")
    client = mlflow.MlflowClient()
    client.set_model_version_tag(version.name, version.version, MODEL, files.sha256_of(other))
    other.parent.rename(CACHE / files.sha256_of(other))
    try:
        with pytest.raises(UserError):
            store.download(uri)
    finally:
        client.set_model_version_tag(version.name, version.version, MODEL, version.tags[MODEL])


def test_entry_file_refuses_before_it_imports_under_plain_mlflow(
    project: tuple[Registry, Any, Path], tmp_path: Path
) -> None:
    """One process with MLflow and none of our modules loads every forged copy, then the good one."""
    store, version, _ = project
    with store.opened(version) as (copy, _):
        for name in CHANGES:
            if name not in BEFORE_ENTRY:
                CHANGES[name](Path(shutil.copytree(copy, tmp_path / name)))
        shutil.copytree(copy, tmp_path / "~good")
        expected = predictor.answer(copy / "artifacts/spam-full", ["free prize"])[0]["label"]
    code = (
        "import json, pathlib, sys, mlflow, pandas\n"
        "said = {}\n"
        "for folder in sorted(pathlib.Path('.').iterdir()):\n"
        "    try:\n"
        "        table = pandas.DataFrame({'text': ['free prize']})\n"
        "        said[folder.name] = mlflow.pyfunc.load_model(str(folder)).predict(table)['label'][0]\n"
        "    except Exception as error:\n"
        "        said[folder.name] = f'{type(error).__name__}: {error}'\n"
        "    if folder.name != '~good' and any(name.partition('.')[0] == 'pipeline' for name in sys.modules):\n"
        "        said[folder.name] += ' BUT IMPORTED'\n"
        "print(json.dumps(said))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.pop("~good") == expected
    assert set(said) == set(CHANGES) - BEFORE_ENTRY
    for name, text in said.items():
        assert text.startswith("ChangedError"), f"{name}: {text}"
        assert "BUT IMPORTED" not in text, name
    assert not list(tmp_path.rglob("foreign.txt"))


def test_entry_file_refuses_when_other_code_is_imported_already(
    project: tuple[Registry, Any, Path], tmp_path: Path
) -> None:
    """Lost otherwise: in a process with another checkout, code that nobody approved would answer."""
    store, version, _ = project
    with store.opened(version) as (copy, _):
        folder = shutil.copytree(copy, tmp_path / "version")
    package = shutil.copytree(folder / "code/pipeline", tmp_path / "pipeline")
    module = package / "inference" / "labels.py"
    module.write_text(module.read_text() + "\n# another\n")
    code = "import pipeline.inference.labels, mlflow; mlflow.pyfunc.load_model('version')"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode != 0
    assert "pipeline.inference.labels was already imported from" in done.stderr


def test_torture_reports_a_change_that_a_careless_check_misses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: without the check every change to a file is taken, and the program says so."""
    assert forged_versions.run(4, tmp_path / "checked") == {"tried": 4, "held": 4, "misses": []}
    real = contents.check

    def careless(folder: Path, name: str, number: str) -> contents.Contents:
        manifest = folder / "version.json"
        return real(folder, name, number) if not manifest.is_file() else known

    known = real(next((tmp_path / "checked/mlartifacts/models").glob("*/artifacts")), "spam", "1")
    monkeypatch.setattr(contents, "check", careless)
    found = forged_versions.run(4, tmp_path / "unchecked")
    assert found["held"] < 4
    assert found["misses"]


@pytest.mark.parametrize("change", forged_versions.CHANGES)
def test_torture_changes_a_file_for_every_kind_of_change(
    project: tuple[Registry, Any, Path], stored: Path, change: Callable[[Path, random.Random], str]
) -> None:
    before = files.sha256_of(stored)
    change(stored, random.Random(1))
    assert files.sha256_of(stored) != before
