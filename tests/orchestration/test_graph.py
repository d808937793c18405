"""The graph as read from DVC: the flow would run stages in the wrong order, or call fresh ones stale."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.orchestration import graph
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
    return copy()


def test_read_gives_stages_in_topological_order(project: Path) -> None:
    """Order, upstream, outs and meta are DVC's own, `foreach` keys resolved."""
    found = graph.read()
    assert list(found.stages) == ["one", "fan@left", "fan@right", "last"]
    assert found.stages["last"].upstream == ("fan@left", "fan@right")
    assert found.stages["one"].outs == ("out",)
    assert found.stages["one"].meta.tags == ("network",)
    assert found.affected() == set()


def test_affected_holds_the_changed_stage_and_its_downstream(project: Path) -> None:
    """No more and no fewer: the other branch stays fresh."""
    (project / "params.yaml").write_text(scratch.PARAMS.replace("value: 2", "value: 3"), encoding="utf-8")
    found = graph.read()
    assert found.affected() == {"fan@right", "last"}
    assert [(c.kind, c.name) for c in found.stages["fan@right"].changes] == [
        ("parameter", "fan.right"),
        ("command", "changed command"),
    ]


def test_only_adds_upstream_stages(project: Path) -> None:
    """A group's name stands for all its stages; what nobody asked for stays out."""
    assert list(graph.read().only(["fan"]).stages) == ["one", "fan@left", "fan@right"]


def test_only_names_the_choices_for_an_unknown_target(project: Path) -> None:
    """A typing error must not run the whole graph."""
    with pytest.raises(UserError, match=r"no stage 'lats' \(did you mean 'last'\?\); one of: one, "):
        graph.read().only(["lats"])


def test_read_refuses_a_mistyped_hint(project: Path) -> None:
    """`retry: 3` in meta would otherwise silently mean no retry."""
    text = scratch.STAGES.replace("retries: 0", "retry: 3")
    (project / "dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"stage one: meta\.retry: .*found 3.*retries, timeout_s"):
        graph.read()


def test_read_raises_user_error_for_a_broken_dvc_yaml(project: Path) -> None:
    """No traceback for a file that the user wrote."""
    (project / "dvc.yaml").write_text("stages: [", encoding="utf-8")
    with pytest.raises(UserError, match=r"dvc\.yaml"):
        graph.read()


def test_read_raises_user_error_without_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run from the wrong folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not inside of a DVC repository"):
        graph.read()
