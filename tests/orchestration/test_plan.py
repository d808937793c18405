"""`tohum plan`: without it a user starts an hour of training and does not know which setting asked for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import config
from pipeline.errors import UserError
from pipeline.orchestration import graph, plan
from tests import scratch


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = scratch.template(tmp_path_factory.mktemp("made") / "project")
    done = scratch.dvc(folder, "repro", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def project(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy: Callable[[], Path] = scratch.copies(ran, tmp_path, monkeypatch)
    monkeypatch.setattr(config, "load", lambda: None)  # the scratch project has params of its own
    return copy()


def _planned(project: Path) -> dict[str, plan.PlannedStage]:
    locked = plan.read_yaml(project / "dvc.lock")["stages"]
    params = plan.read_yaml(project / "params.yaml")
    return {row.stage: row for row in plan.rows(graph.read(restorable=True), locked, params)}


def _set(project: Path, old: str, new: str) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new), encoding="utf-8")


def test_show_prints_one_line_when_nothing_changed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The question most often asked has a one-line answer, and nothing else is printed."""
    assert plan.show() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("nothing to run")
    assert "cached: 4 of 4" in shown


def test_rows_show_old_and_new_values_of_a_changed_setting(project: Path) -> None:
    """Why: the leaf that changed, not only the section, and the stages that follow."""
    _set(project, "value: 2", "value: 3")
    rows = _planned(project)
    assert {name: row.action for name, row in rows.items()} == {
        "one": "cached",
        "fan@left": "cached",
        "fan@right": "run",
        "last": "may run",
    }
    assert rows["fan@right"].why[0] == "fan.right.value: 2 -> 3"
    assert rows["last"].why == ["after fan@right"]


def test_rows_compare_values_as_dvc_reads_them(project: Path) -> None:
    """dvc.lock writes 1e-08 and no: a reader of YAML 1.1 takes them for a word and for false."""
    section = 'right: {value: 2, epsilon: 1.0e-8, language: "no", rate: 2e-4}'
    _set(project, "right: {value: 2}", section)
    assert scratch.dvc(project, "repro", "--quiet").returncode == 0
    _set(project, "value: 2", "value: 3")
    assert _planned(project)["fan@right"].why[0] == "fan.right.value: 2 -> 3"
    assert not [line for line in _planned(project)["fan@right"].why if "epsilon" in line or "language" in line]


def test_show_names_missing_inputs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the user's and one that a setting names; what the graph itself makes is not missing."""
    (project / "source.txt").unlink()
    _set(
        project,
        "right: {value: 2}",
        "right: {value: 2, start: {kind: folder, path: open/weights}, more: {path: p/*.x}}",
    )
    _set(project, "left: {value: 1}", "left: {value: 1, path: dvc.yaml, start: {kind: hub, path: org/model}}")
    assert plan.show() == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert said == [
        "missing: source.txt, which one reads",
        "missing: open/weights (fan.right.start.path), which fan@right reads",
        "missing: p/*.x (fan.right.more.path), which fan@right reads",
    ]


def test_rows_name_a_changed_file(project: Path) -> None:
    """Code and data count as reasons too."""
    (project / "source.txt").write_text("other\n", encoding="utf-8")
    assert _planned(project)["one"].why == ["source.txt modified"]


def test_rows_run_a_stage_whose_setting_never_had_this_value(project: Path) -> None:
    """Lost otherwise: the plan says "restore, 0 minutes" of a training that has to run."""
    _set(project, "seed: 1", "seed: 3")
    assert _planned(project)["one"].action == "run"


def test_rows_restore_a_setting_that_was_set_back(project: Path) -> None:
    """A restored stage costs no minutes, so the plan must not count them."""
    _set(project, "seed: 1", "seed: 2")
    assert scratch.dvc(project, "repro", "--quiet").returncode == 0
    _set(project, "seed: 2", "seed: 1")
    assert _planned(project)["one"].action == "restore"


def test_show_takes_costs_from_the_last_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers where there are some, question marks where a stage never ran, no crash at a damaged record."""
    runs = project / "reports" / "runs"
    runs.mkdir(parents=True)
    record = {"seconds_total": 90, "peak_memory_mib": 512.4}
    (runs / "fan@right.json").write_text(json.dumps(record), encoding="utf-8")
    (runs / "last.json").write_text("{", encoding="utf-8")
    _set(project, "value: 2", "value: 3")
    assert plan.show() == 0
    shown = capsys.readouterr().out
    assert "run          1.5  fan.right.value: 2 -> 3" in shown
    assert "may run        ?" in shown
    assert "at most 1.5 min one after another, 1 never run" in shown
    assert "peak memory of the largest stage: 512 MiB" in shown
    assert "GiB free" in shown


def test_render_warns_of_a_disk_too_small() -> None:
    """Before the run, not after an hour of it."""
    row = plan.PlannedStage("pretrain", "run", ["never run"], None, None, 10 * 2**30)
    assert "warning: the disk is too small" in plan.render([row], free_bytes=2**30)
    assert "warning" not in plan.render([row], free_bytes=20 * 2**30)


def test_show_writes_nothing(project: Path) -> None:
    """A plan that changed the project would be a run."""

    def state() -> dict[str, bytes]:
        paths = [p for p in project.rglob("*") if p.is_file() and ".dvc/tmp" not in p.as_posix()]
        return {p.as_posix(): p.read_bytes() for p in paths if ".git/" not in p.as_posix()}

    _set(project, "seed: 1", "seed: 2")
    before = state()
    assert plan.show() == 0
    assert state() == before


def test_show_raises_user_error_for_an_unknown_stage(project: Path) -> None:
    with pytest.raises(UserError, match=r"dvc\.yaml: no stage 'fam'"):
        plan.show(["fam"])
