"""An edit of the code, before stage `code` has run: the plan must show exactly the stages that it makes stale."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.orchestration import code_changes, graph, plan
from pipeline.paths import CODE as ROOT
from pipeline.registry import admission
from tests import scratch
from tests.bench import stale

LORA = {"finetune@chat-lora", "finetune@spam-lora"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a placeholder for every out, as if all stages had run."""
    root = tmp_path_factory.mktemp("made") / "project"
    stale.copied(ROOT, root, [])
    stale.committed(root)
    return root


@pytest.fixture
def project(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(ran, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def edited(project: Path, name: str, old: str, new: str) -> None:
    path = project / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_real_change_is_stale_before_and_after_stage_code_ran(project: Path) -> None:
    edited(project, "pipeline/tuners/lora.py", "return ", "return 0 or ")
    found = graph.read(restorable=True)
    assert {stage.name for stage in found if stage.changes} == LORA | {"code"}
    assert [(change.name, change.how) for change in found.stages["finetune@spam-lora"].changes] == [
        ("pipeline/tuners/lora.py", "modified")
    ]
    assert not found.stages["finetune@spam-lora"].restorable  # what the run cache holds is of the code before
    locked = plan.read_yaml(project / "dvc.lock")["stages"]
    rows = {row.stage: row for row in plan.rows(found, locked, plan.read_yaml(project / "params.yaml"))}
    assert rows["finetune@spam-lora"].why == ["pipeline/tuners/lora.py modified"]
    assert rows["evaluate@spam-lora"].action == "may run"
    assert rows["finetune@spam-full"].action == rows["evaluate@spam-full"].action == "cached"
    assert scratch.dvc(project, "repro", "--single-item", "code").returncode == 0
    status = json.loads(scratch.dvc(project, "status", "--json").stdout)
    assert set(status) == LORA
    assert {stage.name for stage in graph.read() if stage.changes} == LORA


def test_a_comment_makes_stage_code_stale_alone(project: Path) -> None:
    edited(project, "pipeline/model/gpt.py", "import torch\n", "import torch  # a comment\n")
    assert graph.read().affected() == {"code"}


def test_the_expected_files_are_those_that_stage_code_writes(project: Path) -> None:
    """Two ways to write them would each be stale to the other."""
    written = {path.stem: path.read_text(encoding="utf-8") for path in (project / "data/code").glob("*.json")}
    assert code_changes.expected(project) == written


def test_lost_code_files_make_no_other_stage_stale(project: Path) -> None:
    shutil.rmtree(project / "data/code")
    assert graph.read().affected() == {"code"}


def test_a_source_file_that_is_no_python_is_a_sentence(project: Path) -> None:
    edited(project, "pipeline/model/gpt.py", "import torch\n", "import\n")
    with pytest.raises(UserError, match=r"model/gpt\.py:\d+: "):
        graph.read()


def test_flow_runs_stage_code_before_it_asks_what_is_stale(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc repro --single-item X` says "didn't change" until stage `code` has run."""
    from pipeline.orchestration import flow
    from pipeline.orchestration.process import Processes

    monkeypatch.setattr(flow, "log_lines", lambda: lambda line: None)
    edited(project, "pipeline/tuners/lora.py", "return ", "return 0 or ")
    found = flow._with_code(Processes())
    assert {stage.name for stage in found if stage.changes} == LORA
    assert set(json.loads(scratch.dvc(project, "status", "--json").stdout)) == LORA


def test_registration_refuses_a_real_change_of_its_model_and_no_comment(project: Path) -> None:
    edited(project, "pipeline/model/gpt.py", "import torch\n", "import torch  # a comment\n")
    edited(project, "pipeline/tuners/lora.py", "return ", "return 0 or ")
    admission.require_current(["spam-full"])
    with pytest.raises(UserError, match=r"dvc\.lock is stale: finetune@spam-lora changed"):
        admission.require_current(["spam-lora"])
