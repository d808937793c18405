"""Looks of the watch as the flow reads them, episodes that are answered once, and the journal's source in params.yaml.

Lost otherwise: a second training for one alarm, a retraining for people who only write differently, or the old data.
"""

import difflib
import json
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.orchestration import added_source, drift
from pipeline.orchestration.drift import Seen
from pipeline.orchestration.process import Processes
from pipeline.orchestration.run_checkout import RunCheckout
from tests import scratch

LOOK = {"model": "spam-lora", "verdict": "alarm", "evidence": ["quality"], "episode": "e1", "statistics": []}


@pytest.mark.parametrize(
    ("verdict", "evidence", "asks"),
    [
        ("alarm", ("quality",), True),
        ("alarm", ("input", "quality"), True),
        ("alarm", ("input",), False),
        ("warning", ("input",), False),
        ("quiet", (), False),
    ],
)
def test_look_asks_for_retraining_only_with_evidence_of_lost_quality(
    verdict: str, evidence: tuple[str, ...], asks: bool
) -> None:
    assert Seen("spam-lora", verdict, evidence, "e1").asks_for_retraining is asks


def test_read_takes_the_look_among_other_lines() -> None:
    lines = ["a warning", "{not json", json.dumps({"other": 1}), json.dumps(LOOK)]
    (seen,) = drift.read(lines, "spam-lora")
    assert seen == Seen("spam-lora", "alarm", ("quality",), "e1")
    quiet = json.dumps(LOOK | {"verdict": "quiet", "evidence": [], "episode": None})
    assert drift.read([quiet], "spam-lora")[0].episode == ""
    with pytest.raises(UserError, match=r"tohum watch spam-lora: no verdict, it printed nothing"):
        drift.read([], "spam-lora")


def test_episode_is_answered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not drift.retrained("spam-lora", "e1")
    drift.note("spam-lora", "e1")
    drift.note("chat-lora", "e7")
    assert drift.retrained("spam-lora", "e1")
    assert drift.retrained("chat-lora", "e7")
    assert not drift.retrained("spam-lora", "e2")
    drift.note("spam-lora", "")
    assert not drift.retrained("spam-lora", ""), "a retraining that a person asked for has no episode"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((scratch.ROOT / "params.yaml").read_bytes())
    path = Path("inputs/ratings-2026-11-29-1.jsonl")
    path.parent.mkdir()
    path.write_text("{}\n", encoding="utf-8")
    return path


def test_add_puts_the_snapshot_beside_the_sources_that_are_there(snapshot: Path) -> None:
    before = Path("params.yaml").read_text(encoding="utf-8")
    old: Any = yaml.safe_load(before)
    name = added_source.add(snapshot)
    after = Path("params.yaml").read_text(encoding="utf-8")
    new: Any = yaml.safe_load(after)
    source = new["download"]["sources"].pop(name)
    assert new == old
    assert (source["name"], source["path"], source["weight"]) == ("journal", str(snapshot), 1.0)
    assert source["requests"] is None, "the model would learn its own answers"
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "-?"]
    assert changed == [], "a line of the person's own was changed"
    assert added_source.add(snapshot) == name
    assert Path("params.yaml").read_text(encoding="utf-8") == after, "the same run, started again, adds it twice"


def test_snapshot_is_kept_when_its_run_starts_again_on_another_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: the run, whose params.yaml would name a second snapshot of the same people."""
    project, run = tmp_path / "project", tmp_path / "project/.tohum/runs/0123456789ab"
    run.mkdir(parents=True)
    monkeypatch.chdir(run)
    own = RunCheckout(project, run, "run/1", "0" * 40, None, False, ())
    begun: list[list[str]] = []

    class Commands:
        def run(self, words: list[str], **_: Any) -> None:
            begun.append(words)
            Path(words[-2]).write_text("{}\n", encoding="utf-8")

    def dvc(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        Path(f"{words[-1]}.dvc").touch()
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", dvc)
    first = added_source.snapshot(own, cast(Processes, Commands()), "ratings-2026-11-29")
    assert added_source.snapshot(own, cast(Processes, Commands()), "ratings-2026-11-30") == first
    assert first == Path("inputs/ratings-2026-11-29-01234567.jsonl")
    assert [words[-1] for words in begun] == ["--keep"]


def test_add_names_sources_that_it_cannot_add_to(snapshot: Path) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    Path("params.yaml").write_text(yaml.safe_dump(raw, default_flow_style=True), encoding="utf-8")
    with pytest.raises(UserError, match=r"download\.sources is on one line"):
        added_source.add(snapshot)
