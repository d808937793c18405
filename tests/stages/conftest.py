"""The project of tests/base_project.py, made once for the tests of this folder."""

import shutil
from pathlib import Path

import pytest

from tests import base_project as small


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project; not to be changed."""
    root = tmp_path_factory.mktemp("base") / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small.make(root)
    return root


@pytest.fixture
def base_project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    root = tmp_path / "project"
    shutil.copytree(finished, root, symlinks=True)
    monkeypatch.chdir(root)
    return root
