"""The checkout of a flow run: two runs in it, or params.yaml lost to one, would cost a user their work."""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.errors import UserError
from pipeline.orchestration import checkout, leftovers
from tests import scratch
from tests.commands import tohum

OWN = "# my own edit: ğ\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default's params with an edit of the user's, and the profiles."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scratch.ROOT / "infra/profiles", tmp_path / "infra/profiles")
    text = (tmp_path / "infra/profiles/embedded.yaml").read_text(encoding="utf-8") + OWN
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def _steps() -> int:
    return int(yaml.safe_load(config.PARAMS.read_text(encoding="utf-8"))["pretrain"]["schedule"]["steps"])


def test_params_of_run_changes_params_and_puts_them_back(here: Path) -> None:
    """Also where the run ends with an error."""
    before = config.PARAMS.read_bytes()
    with contextlib.suppress(RuntimeError), checkout.params_of_run(["gpt2-124m"], {"pretrain.schedule.steps": 7}):
        assert _steps() == 7
        raise RuntimeError
    assert config.PARAMS.read_bytes() == before
    with checkout.params_of_run([], {"pretrain.schedule.steps": 9}):
        assert _steps() == 9
        assert OWN in config.PARAMS.read_text(encoding="utf-8")
    assert config.PARAMS.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "values", "said"),
    [
        (["no-such"], {}, r"profile 'no-such' is not in infra/profiles; one of: "),
        ([], {"pretrain.no_such": 1}, r"^params\.yaml: pretrain\.no_such is not there"),
        ([], {"pretrain.schedule.steps": "many"}, r"params\.yaml: pretrain\.schedule\.steps: .*found 'many'"),
    ],
)
def test_params_of_run_refuses_invalid_values_and_changes_nothing(
    here: Path, names: list[str], values: dict[str, object], said: str
) -> None:
    before = config.PARAMS.read_bytes()
    with pytest.raises(UserError, match=said), checkout.params_of_run(names, values):
        pass
    assert config.PARAMS.read_bytes() == before


def _killed(here: Path) -> None:
    """A run that is killed, with a signal that nobody can catch, while its params are in the file."""
    code = (
        "import os, signal\nfrom pipeline.orchestration import checkout\n"
        "with checkout.held('k'), checkout.params_of_run([], {'pretrain.schedule.steps': 7}):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=here, env=scratch.environment(), check=False)
    assert _steps() == 7


def test_params_of_run_puts_params_back_after_a_kill(here: Path) -> None:
    before = config.PARAMS.read_bytes()
    _killed(here)
    with checkout.held("next"), checkout.params_of_run([], {}) as said:
        assert config.PARAMS.read_bytes() == before
    assert said == ["params.yaml is again as it was before a run with profile or set"]


def test_prepare_puts_params_back_after_a_kill(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make repro` begins with it: else the next training would have the killed run's values."""
    before = config.PARAMS.read_bytes()
    _killed(here)
    (one,) = leftovers.flow_params(here)
    assert one.todo == "put the one from before back"
    with checkout.held("a run"):
        assert leftovers.flow_params(here) == []
        with pytest.raises(UserError, match="the flow run a run"):
            tohum("prepare")
    assert _steps() == 7
    assert tohum("prepare") == 0
    assert config.PARAMS.read_bytes() == before
    assert "again as it was" in capsys.readouterr().out
    assert leftovers.flow_params(here) == []


def test_params_of_run_keeps_an_edit_made_meanwhile(here: Path) -> None:
    before = config.PARAMS.read_bytes()
    _killed(here)
    edited = config.PARAMS.read_bytes() + b"# after the kill\n"
    config.PARAMS.write_bytes(edited)
    with checkout.params_of_run([], {}) as said:
        assert config.PARAMS.read_bytes() == edited
    assert "params.yaml was edited during a run and stays" in said[0]
    assert (here / ".tohum/flow/params.kept.yaml").read_bytes() == before


def test_held_refuses_a_second_run(here: Path) -> None:
    second = checkout.held("second")
    with (
        checkout.held("brave-crab"),
        pytest.raises(UserError, match=r"the flow run brave-crab .*works in this folder"),
    ):
        second.__enter__()
    with checkout.held("third"):
        pass
