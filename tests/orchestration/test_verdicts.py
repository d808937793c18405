"""If these fail, the flow shows a gate's verdict of an earlier run, or not the measured values of this one."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import files
from pipeline.gates import _verdict
from pipeline.orchestration import flow_tasks, graph, verdicts
from pipeline.orchestration.process import StageError
from tests.gates.test_verdict import frame, reach

STAGE = graph.Stage("validate@raw", "", (), ("reports/gates/raw",))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Markdown of every published verdict, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    shown: list[str] = []
    monkeypatch.setattr(flow_tasks, "publish", lambda verdict: shown.append(verdict.markdown))
    monkeypatch.setattr(flow_tasks, "followed", lambda *_: nullcontext())
    monkeypatch.setattr(flow_tasks, "log_lines", lambda: print)
    return shown


def ran(verdict: dict[str, Any], error: str = "", lines: tuple[str, ...] = ()) -> Any:
    """The state of the stage's task, after a call of DVC that wrote the verdict."""

    def run(*_: Any, **__: Any) -> list[str]:
        files.remove(Path("reports/gates/raw"))
        _verdict.write(Path("reports/gates/raw"), verdict)
        if error:
            raise StageError(error)
        return list(lines)

    processes: Any = SimpleNamespace(environment={"TOHUM_PIPELINE_UID": "x"}, run=run)
    return flow_tasks.stage_task.fn(STAGE, fresh=False, force=False, processes=processes)


def test_stage_task_publishes_the_verdict_when_a_gate_passes_after_it_failed(published: list[str]) -> None:
    with pytest.raises(StageError, match="raw gate failed: documents bad is 2; allowed: at most 0"):
        ran(reach(frame(2)), error="exit code 255")
    assert ran(reach(frame(0))).message == "ran"
    assert ran(reach(frame(0)), lines=("Stage 'x' is cached - skipping run",)).message == "restored from the run cache"
    assert ["failed" in markdown for markdown in published] == [True, False, False]
    assert "**the raw gate passed**" in published[1]


def test_markdown_has_a_row_per_failed_rule_with_values_and_offending_rows(tmp_path: Path) -> None:
    _verdict.write(tmp_path, reach(frame(9, "a | <b> [x](y)")))
    raw = files.read_json(tmp_path / "verdict.json")
    lines = verdicts.Verdict("raw", raw["passed"], raw["results"]).markdown.splitlines()
    assert lines[4].startswith(
        "| critical | documents bad is 9; allowed: at most 0 | nothing is bad | 9 | file.csv:0 a &#124;"
    )
    assert lines[5].startswith("| warning | labelled other is 2; allowed: at most 1 | little is other |")
    assert "<b>" not in "".join(lines)
    assert len(lines) == 6


def test_markdown_shows_results_of_an_older_version() -> None:
    older = {
        "expectation": "expect", "column": "c", "severity": "critical", "count": 3, "says": "at most 0",
        "offenders": ["x"], "params_key": "gates.k", "success": False, "waived": False,
    }  # fmt: skip
    verdict = verdicts.Verdict("raw", False, [older])
    assert "expect on c: 3, expected at most 0 (change gates.k in params.yaml)" in verdict.sentence
    assert "| x | gates.k |" in verdict.markdown
