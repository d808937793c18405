"""If these fail, a failed gate does not stop the graph, or a moved threshold retrains the base model."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import files
from pipeline.config.check import PARAMS
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT
from stages import validate
from tests.gates.builders import GATES, Raw, Samples, Tokens


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    change(lambda params: None)
    return tmp_path


def change(edit: Callable[[dict[str, Any]], Any]) -> None:
    """Writes params.yaml: the project's, with the tests' gates, then edited."""
    params = yaml.safe_load((ROOT / PARAMS).read_text(encoding="utf-8"))
    params["runtime"]["tracking"]["enabled"] = False
    params["gates"], params["waivers"] = yaml.safe_load(yaml.safe_dump(GATES)), []
    edit(params)
    Path("params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The stage in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["validate", *arguments])
    try:
        validate.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def spoilt() -> Raw:
    made = Raw()
    made.add("documents", "The house of the friend and the river, write to friend@mail.example today.")
    return made


def test_every_data_gate_passes_clean_data_and_gives_tickets(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Samples(Tokens(Raw())).write(project / "data")
    for gate, kinds in (("raw", 4), ("tokens", 1), ("samples", 4)):
        assert run(monkeypatch, gate) == 0
        assert len(list((project / "data" / "tickets" / gate).glob("*.json"))) == kinds
        assert (project / "reports" / "gates" / gate / "page.html").exists()
        assert files.read_json(project / "reports" / "gates" / gate / "verdict.json")["passed"]


def test_a_failed_gate_exits_1_names_the_cause_and_gives_no_ticket(project: Path) -> None:
    spoilt().write(project / "data")
    (project / "data" / "tickets" / "tokens").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-m", "stages.validate", "raw"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    for part in (
        "personal_email",
        "count 1",
        "made:documents:40",
        "gates.raw.max_personal.email",
        "page.html",
    ):
        assert part in done.stdout
    assert "friend@mail" not in done.stdout
    assert not (project / "data" / "tickets" / "raw").exists()
    assert (project / "data" / "tickets" / "tokens").exists()
    assert not files.read_json(project / "reports" / "gates" / "raw" / "verdict.json")["passed"]
    assert files.read_json(project / "reports" / "runs" / "validate@raw.json")["status"] == "FAILED"
    assert "Traceback" not in done.stderr


def test_tickets_feel_neither_threshold_nor_waiver_nor_other_kinds(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tickets() -> dict[str, bytes]:
        assert run(monkeypatch, "raw") == 0
        return {path.stem: path.read_bytes() for path in (project / "data" / "tickets" / "raw").glob("*.json")}

    made = spoilt()
    made.write(project / "data")
    change(lambda params: params["gates"]["raw"]["max_personal"].update(email=1))
    loose = tickets()
    change(
        lambda params: params["waivers"].append(
            {
                "gate": "raw",
                "expectation": "expect_column_values_to_be_between",
                "column": "personal_email",
                "reason": "invented",
                "until": "2030-01-01",
            }
        )
    )
    assert tickets() == loose
    made.add("labelled", "The letter of the friend is in the house with the river.")
    made.write(project / "data")
    more = tickets()
    assert {kind for kind in loose if loose[kind] != more[kind]} == {"labelled"}


def test_a_weak_model_is_judged_and_the_graph_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project / "reports" / "evaluation" / "spam-lora"
    files.write_json(folder / "metrics.json", {"accuracy": 0.6})
    assert run(monkeypatch, "model", "spam-lora") == 0
    assert "gate spam-lora: failed" in capsys.readouterr().out
    assert not files.read_json(project / "reports" / "gates" / "spam-lora" / "verdict.json")["passed"]
    assert not (project / "data" / "tickets").exists()


@pytest.mark.parametrize("arguments", [[], ["rwa"], ["model"], ["model", "nobody"], ["raw", "tokens"]])
def test_what_to_judge_must_be_named(arguments: list[str], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="one of:"):
        run(monkeypatch, *arguments)


def test_missing_data_say_which_stage_makes_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="dvc repro download"):
        run(monkeypatch, "raw")
