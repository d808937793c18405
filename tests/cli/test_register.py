"""Registration: only what the current graph made and the gates let through gets into the registry."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from pipeline.registry import admission
from tests.commands import tohum


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real DVC project whose validate-model stages have run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.txt").write_text("one")
    do = {"cmd": "cp input.txt ${item}.txt", "deps": ["input.txt"], "outs": ["${item}.txt"]}
    foreach = {"foreach": ["base", "chat-full"], "do": do}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"validate-model": foreach}}))
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True)
    return tmp_path


def test_admission_refuses_a_stale_graph(graph: Path) -> None:
    admission.require_current(["base", "chat-full"])
    (graph / "input.txt").write_text("two")
    with pytest.raises(UserError, match=r"stale: validate-model@base .*dvc repro"):
        admission.require_current(["base"])


def test_admission_refuses_a_project_that_never_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"dvc\.lock: not there"):
        admission.require_current(["base"])


def test_register_registers_the_others_when_a_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from types import SimpleNamespace

    from pipeline import registry
    from pipeline.tracking import sender

    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(config, "load", lambda: Params.model_validate(raw))
    monkeypatch.setattr(admission, "require_current", lambda models: None)
    monkeypatch.setattr(sender, "drain", lambda timeout_s: 0)

    def admit(model: str, params: Params) -> SimpleNamespace:
        if model == "base":
            raise UserError("base: gate base did not pass")
        return SimpleNamespace(model=model, sha256="abc")

    class Fake:
        def __init__(self, params: Params) -> None: ...

        def register(self, facts: SimpleNamespace, folder: Path) -> tuple[SimpleNamespace, bool]:
            return SimpleNamespace(name=f"tohum-{facts.model}", version=1), True

    monkeypatch.setattr(admission, "admit", admit)
    monkeypatch.setattr(registry, "Registry", Fake)
    with pytest.raises(UserError, match="gate base did not pass"):
        tohum("register", "base", "chat-full")
    assert "tohum-chat-full version 1: registered" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"\['bsae'\] are not models"):
        tohum("register", "bsae")
    # What a person approved is registered, and no other bytes.
    with pytest.raises(UserError, match=r"^spam-lora: its sha256 is abc, approved was approved"):
        tohum("register", "chat-full", "--sha256", "abc", "spam-lora", "--sha256", "approved")
    assert "tohum-chat-full" in (said := capsys.readouterr().out)
    assert "spam-lora" not in said
    assert tohum("register", "chat-full", "spam-lora", "--sha256", "abc") == 2
    assert "1 hashes for 2 models" in capsys.readouterr().err
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(UserError, match=r"mlflow\.db: not a database that this MLflow can use"):
        tohum("register", "chat-full")
