"""DVC's hashes without DVC: a lineage tag that differs from dvc.lock names data that no run has read."""

import shutil
from pathlib import Path

import pytest
import yaml

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
def test_every_dependency_has_the_hash_that_dvc_records(project: Path, cached: bool, tmp_path: Path) -> None:
    """Also where the listing of an out is not in DVC's cache: then what lies in the project is hashed."""
    root = tmp_path / "project"
    shutil.copytree(project, root)
    if not cached:
        shutil.rmtree(root / ".dvc/cache")
    found = _locked(root)
    assert {stage: lineage.dvc_inputs(stage, root) for stage in found} == found
    assert found["one"]["data/raw/documents"] != found["one"]["data/raw"]


def test_the_order_of_stages_is_that_of_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the committed graph, where a gate waits for what is written below it in dvc.yaml."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(scratch.ROOT / name, tmp_path / name)
    assert scratch.dvc(tmp_path, "init", "--no-scm", "--quiet").returncode == 0
    monkeypatch.chdir(tmp_path)
    found = lineage.stage_order()
    assert found == list(graph.read().stages)
    assert found.index("tokenize") < found.index("validate@tokens") < found.index("pretrain")


def test_what_is_not_there_has_no_hash(project: Path) -> None:
    outs = lineage.dvc_outs(project)
    assert dvc_hash.of("data/raw/nothing", outs, project) is None
    assert dvc_hash.of("nowhere", outs, project) is None
    assert dvc_hash.of("data/ra", outs, project) is None
