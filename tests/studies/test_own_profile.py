"""`tohum profile files --data FILE`: a full run sized to the user's file, written over nothing of theirs."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from tests.commands import tohum
from tests.own_files import labelled, write_csv


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the embedded default; nothing is timed."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copytree(ROOT / "infra/profiles", root / "infra/profiles")
    shutil.copy(ROOT / "infra/profiles/embedded.yaml", root / "params.yaml")
    monkeypatch.chdir(root)
    monkeypatch.setattr("pipeline.studies.speed.expected_seconds", lambda *_: (90.0, 17))
    return root


def test_profile_writes_source_recipes_and_sizes_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "own.csv", labelled(400))
    assert tohum("profile", "files", "--data", str(data)) == 0
    params = config.load()
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    assert {name: source["path"] for name, source in raw["download"]["sources"].items()} == {
        "own": "inputs/own.csv", "own-text": "inputs/own.csv",
    }  # fmt: skip
    assert Path("inputs/own.csv").read_bytes() == data.read_bytes()
    assert set(params.finetune) == {"spam-full", "spam-layers", "spam-lora"}  # the recipes over labelled texts
    assert params.register_.models == ["base", "spam-full", "spam-lora"]
    assert params.split.validation == params.split.test == 0.12
    limit = raw["finetune"]["spam-lora"]["task"]["max_tokens"]
    assert params.pretrain.model.context_length >= limit < 96
    assert raw["gates"]["samples"]["max_tokens"]["labelled"] == limit - 1
    assert raw["gates"]["raw"]["labels"]["min_share"] == 0.25  # half of the rarest label's share
    assert "# changes no bit of any out" in Path("params.yaml").read_text(encoding="utf-8")  # comments stay
    shown = capsys.readouterr().out
    assert "expected duration: about 2 min" in shown
    assert "epochs of" in shown
    assert not list(Path(".tohum").glob("measured-*"))
    tohum("profile", "embedded")  # its own result is no change of the user's
    assert Path("params.yaml").read_bytes() == (ROOT / "infra/profiles/embedded.yaml").read_bytes()


def test_profile_scales_updates_with_the_file(tmp_path: Path) -> None:
    steps = []
    for n in (60, 3000):
        data = write_csv(tmp_path / f"own{n}.csv", labelled(n))
        tohum("profile", "files", "--data", str(data))
        steps.append(config.load().finetune["spam-lora"].schedule.steps)
    assert steps[0] < 120 < steps[1]


def test_profile_takes_instructions_without_the_measures_of_labels(tmp_path: Path) -> None:
    data = tmp_path / "qa.json"
    rows = [{"question": f"Soru {i} nerede, {i * 7919 % 997}?", "answer": f"Cevap {i} burada"} for i in range(200)]
    data.write_text(json.dumps(rows), encoding="utf-8")
    tohum("profile", "files", "--data", str(data))
    params = config.load()
    assert set(params.finetune) == {"chat-lora", "chat-full"}
    assert "bag_of_words" not in params.evaluations["base"].measures


def test_profile_refuses_before_any_work_what_it_would_overwrite(tmp_path: Path, project: Path) -> None:
    data = write_csv(tmp_path / "own.csv", labelled(60))
    (project / "params.yaml").write_text("seed: 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="holds changes that no profile made"):
        tohum("profile", "files", "--data", str(data))
    assert not (project / "inputs").exists()
    shutil.copy(ROOT / "infra/profiles/embedded.yaml", project / "params.yaml")
    (project / "inputs").mkdir()
    (project / "inputs/own.csv").write_text("another\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"inputs/own\.csv: holds another file of this name"):
        tohum("profile", "files", "--data", str(data))


def test_profile_refuses_data_without_profile_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tohum("profile", "embedded", "--data", str(tmp_path)) == 2
    assert "tohum profile files --data FILE" in capsys.readouterr().err


def test_profile_bounds_the_records_that_duplicates_leave(tmp_path: Path) -> None:
    """Lost otherwise: the samples gate stops the user's first run for copies that the profile has counted."""
    rows = labelled(200)
    tohum("profile", "files", "--data", str(write_csv(tmp_path / "once.csv", rows)))
    assert config.load().gates["samples"]["min_coverage"] == 0.95
    tohum("profile", "files", "--data", str(write_csv(tmp_path / "twice.csv", [*rows, *rows[1:41]])), "--force")
    assert config.load().gates["samples"]["min_coverage"] == 0.83
