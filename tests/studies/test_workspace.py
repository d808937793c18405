"""The folder of a try: another file's models in it would answer for this one."""

from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.studies.guess import guess
from pipeline.studies.workspace import lenient, workspace
from tests.own_files import labelled, write_csv

OUTS = ("dvc.lock", "data/raw/labelled.parquet", "models/base/config.json", "reports/report.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a finished try of 40 rows."""
    data = write_csv(tmp_path / "own.csv", labelled(40))
    workspace(data, guess(data), tmp_path / "try")
    for name in OUTS:
        (tmp_path / "try" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "try" / name).touch()
    return tmp_path / "try"


def test_workspace_keeps_what_the_same_file_gave(folder: Path) -> None:
    """An interrupted try continues: the same command on the same file."""
    data = folder.parent / "own.csv"
    workspace(data, guess(data), folder)
    assert all((folder / name).exists() for name in OUTS)


def test_workspace_removes_what_another_file_gave(folder: Path) -> None:
    data = write_csv(folder.parent / "own.csv", labelled(50))
    workspace(data, guess(data), folder)
    assert not any((folder / name).exists() for name in OUTS)
    assert (folder / "inputs/own.csv").read_bytes() == data.read_bytes()


def test_workspace_refuses_a_folder_in_which_a_run_is_going_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a second try takes the models of the first from under its stages."""
    monkeypatch.setattr("pipeline.orchestration.dvc_lock.running", lambda root: [4711] if root == folder else [])
    data = write_csv(folder.parent / "own.csv", labelled(50))
    with pytest.raises(UserError, match=r"a run is going on there \(process 4711\)"):
        workspace(data, guess(data), folder)
    assert all((folder / name).exists() for name in OUTS)


def test_lenient_lets_a_model_pass_that_does_not_beat_its_baseline() -> None:
    """A try shows such a model with a warning; its gates are open."""
    raw = yaml.safe_load((ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8"))
    assert "block" in raw["gates"]["model"]["baseline"].values()
    assert set(lenient(raw["gates"])["model"]["baseline"].values()) == {"warn"}
