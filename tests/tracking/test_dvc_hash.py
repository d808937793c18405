"""Lineage without DVC: a hash that differs from dvc.lock names data that no run has read."""

import shutil
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.config import profiles
from pipeline.orchestration import graph
from pipeline.tracking import dvc_hash, lineage
from tests import scratch

STAGES = """
stages:
  make:
    cmd: mkdir -p data/raw/içerik && echo 1 > data/raw/documents && echo 2 > data/raw/içerik/ş && echo 3 > data/raw/z
    deps: [inputs]
    outs: [data/raw]
  one:
    cmd: mkdir -p reports/a && cat data/raw/documents > reports/a/metrics.json && echo x > reports/a/details.json
    deps: [data/raw/documents, data/raw/içerik, data/raw]
    outs: [reports/a/details.json]
    metrics: [reports/a/metrics.json]
  all:
    cmd: echo y > last
    deps: [reports, reports/a/metrics.json]
    outs: [last]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project that has run: files in outs, folders in outs, folders around outs, a folder of the user's."""
    folder = scratch.template(tmp_path_factory.mktemp("made") / "project")
    (folder / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (folder / ".dvcignore").write_text("__pycache__\n*.tmp\n", encoding="utf-8")
    for name in ("inputs/veri.csv", "inputs/alt/ğ.txt", "inputs/x.tmp", "inputs/__pycache__/y"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name, encoding="utf-8")
    done = scratch.dvc(folder, "repro", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


def _locked(project: Path) -> dict[str, dict[str, str]]:
    lock = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))
    return {name: {dep["path"]: dep["md5"] for dep in stage["deps"]} for name, stage in lock["stages"].items()}


@pytest.mark.parametrize("cached", [True, False])
def test_dvc_hash_equals_the_recorded_one_for_every_dependency(project: Path, cached: bool, tmp_path: Path) -> None:
    """Also where the listing of an out is not in DVC's cache: then what lies in the project is hashed."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    if not cached:
        shutil.rmtree(root / ".dvc/cache")
    locked = _locked(root)
    outs = lineage.dvc_outs(root)
    computed = {stage: {path: dvc_hash.of(path, outs, root) for path in deps} for stage, deps in locked.items()}
    assert computed == locked
    assert {stage: lineage.locked_inputs(stage, root) for stage in locked} == locked
    assert locked["one"]["data/raw/documents"] != locked["one"]["data/raw"]


def test_stage_order_is_that_of_the_graph_when_all_stages_ran(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    assert lineage.stage_order() == list(graph.read().stages) == ["make", "one", "all"]


@pytest.mark.parametrize("profile", ["embedded", "merged"])
def test_stage_inputs_are_the_data_dependencies_of_the_committed_graph(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a run is shown with inputs that it did not read, or without one that it did."""
    from dvc.repo import Repo

    text = profiles.rendered([profile])
    shutil.copy(scratch.ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert scratch.dvc(tmp_path, "init", "--no-scm", "--quiet").returncode == 0
    monkeypatch.chdir(tmp_path)
    params = config.check(yaml.safe_load(text))
    with Repo() as repo:
        deps = {stage.addressing: [dep.def_path for dep in stage.deps] for stage in repo.index.stages}
    assert len(deps) > 20
    for stage, paths in deps.items():
        data = {path for path in paths if path and not lineage.is_code(path) and path != "params.yaml"}
        assert {path.as_posix() for path in lineage.stage_inputs(stage, params)} == data, stage


def test_dvc_hash_is_none_when_the_file_is_missing(project: Path) -> None:
    outs = lineage.dvc_outs(project)
    assert dvc_hash.of("data/raw/nothing", outs, project) is None
    assert dvc_hash.of("nowhere", outs, project) is None
    assert dvc_hash.of("data/ra", outs, project) is None
