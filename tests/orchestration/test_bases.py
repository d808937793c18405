"""bases.py: `tohum doctor` names models that are stored as an adapter only and cannot be read."""

import shutil
from pathlib import Path

import pytest

from pipeline import files, foreign
from pipeline.orchestration import bases, doctor
from pipeline.paths import DOWNLOADS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A base, and an adapter over it."""
    base = tmp_path / "models/base"
    files.write_json(base / "config.json", {"model_type": "llama"})
    (base / "model.safetensors").write_bytes(b"weights")
    content = {"name": "base", "sha256": foreign.weights_sha256(base), "origin": None}
    files.write_json(tmp_path / "models/spam/base.json", content)
    return tmp_path


def test_adapters_says_nothing_when_the_base_is_there(root: Path) -> None:
    assert bases.adapters(root) == []
    (root / "models/base/README.md").write_text("other words")  # no part of the network
    (root / "models/base/adapter").mkdir()
    (root / "models/base/adapter/adapter_model.safetensors").write_bytes(b"merged already")
    assert bases.adapters(root) == []


def test_adapters_names_a_base_with_other_weights_and_the_command_that_restores_it(root: Path) -> None:
    """Lost otherwise: the first word of it is an error in the middle of an evaluation."""
    (root / "models/base/model.safetensors").write_bytes(b"others")
    (diagnosis,) = bases.adapters(root)
    assert diagnosis.text.startswith(
        "models/spam holds an adapter only, and its base models/base has weights of sha256"
    )
    assert diagnosis.todo == "`dvc checkout models/base`, or `dvc pull models/base` from a remote"


def test_adapters_names_a_base_that_is_not_there(root: Path) -> None:
    (root / "models/base/config.json").unlink()
    (diagnosis,) = bases.adapters(root)
    assert diagnosis.text == "models/spam holds an adapter only, and its base models/base is not there"
    assert "adapters" in doctor.CHECKS


@pytest.mark.parametrize(("unchanged", "n"), [(True, 0), (False, 1)])
@pytest.mark.parametrize("harm", ["absent", "others"])
def test_adapters_takes_the_pinned_download_for_an_unchanged_base(
    harm: str, unchanged: bool, n: int, root: Path
) -> None:
    """Lost otherwise: doctor has a folder mended that is read from the downloads without an error."""
    base, revision = root / "models/base", "0" * 40
    content = files.read_json(root / "models/spam/base.json")
    snapshot = root / DOWNLOADS / "models--org--name/snapshots" / revision
    shutil.copytree(base, snapshot)
    origin = {"repository": "org/name", "revision": revision, "licence": "MIT", "unchanged": unchanged}
    origin["sha256"] = foreign.pin(foreign.hashes(snapshot))
    files.write_json(root / "models/spam/base.json", content | {"origin": origin})
    if harm == "absent":
        shutil.rmtree(base)
    else:
        (base / "model.safetensors").write_bytes(b"others")
    assert len(bases.adapters(root)) == n
    (snapshot / "model.safetensors").write_bytes(b"not the pinned ones")
    assert len(bases.adapters(root)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 3, "sha256": ""}'])
def test_adapters_names_a_damaged_file(root: Path, text: str) -> None:
    (root / "models/spam/base.json").write_text(text)
    (diagnosis,) = bases.adapters(root)
    assert "base.json: cannot be read" in diagnosis.text
    assert diagnosis.todo == "dvc checkout models/spam"
