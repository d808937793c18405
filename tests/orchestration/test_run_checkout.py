"""The checkout of a run and its branch: nothing lost, nothing on main, no commit without its data.

Lost otherwise: a night's training that a colleague cannot pull, or a working folder changed under a person's hands.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.orchestration import run_checkout
from pipeline.orchestration.run_checkout import RunCheckout
from tests import scratch, two_clones
from tests.two_clones import Clones, git, is_up_to_date, run_branches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Clones:
    return two_clones.make(tmp_path_factory.mktemp("clones"))


@pytest.fixture
def clones(made: Clones, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clones]:
    """The clones, without the branches and checkouts of other tests."""
    monkeypatch.chdir(made.first)
    for name, value in scratch.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    for folder in (made.first, made.second):
        shutil.rmtree(folder / ".tohum", ignore_errors=True)
        git(folder, "worktree", "prune")
    for folder in (made.first, made.second, made.origin):
        for branch in git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads/run").split():
            git(folder, "branch", "-D", branch)


def one_run(name: str, steps: int, close: bool = True) -> str:
    """A run in the working folder: changes a setting, runs the graph, saves; returns the sentence."""
    with run_checkout.opened(name) as own:
        Path("params.yaml").write_text(f"steps: {steps}\n", encoding="utf-8")
        assert scratch.dvc(own.folder, "repro", "--quiet").returncode == 0
        said = run_checkout.save(own, f"Run {name}")
        if close:
            run_checkout.close(own)
    return said


def test_runs_of_two_checkouts_are_branches_that_a_clean_clone_finds_up_to_date(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = git(clones.origin, "rev-parse", "main")
    one_run("a", 11)
    monkeypatch.chdir(clones.second)
    assert "pushed to origin" in one_run("b", 12)
    monkeypatch.chdir(clones.first)
    one_run("c", 13)
    assert run_branches(clones) == ["run/a", "run/b", "run/c"]
    assert git(clones.origin, "rev-parse", "main") == before
    for folder in (clones.first, clones.second):
        assert git(folder, "rev-parse", "HEAD") == before
        assert git(folder, "status", "--porcelain") == ""
        assert not list((folder / ".tohum/runs").glob("[!l]*")), "a finished run's folder stayed"
    assert all(is_up_to_date(clones.first.parent, f"clean-{name}", f"run/{name}") for name in "abc")


@pytest.mark.parametrize("killed_at", ["commit", "branch"])
def test_save_leaves_no_commit_without_its_data_when_killed(
    clones: Clones, monkeypatch: pytest.MonkeyPatch, killed_at: str
) -> None:
    """Whichever step the kill comes before, the same run started again ends on the remote, with its data."""
    step = {"commit": ("git", "commit"), "branch": ("git", "push")}[killed_at]
    original: Callable[..., str] = run_checkout._run

    def dies(folder: Path, *command: str) -> str:
        if command[0] == step[0] and step[1] in command:
            raise KeyboardInterrupt
        return original(folder, *command)

    monkeypatch.setattr(run_checkout, "_run", dies)
    with pytest.raises(KeyboardInterrupt):
        one_run("a", 21)
    assert run_branches(clones) == []
    local = git(clones.first, "rev-list", "--count", "main..run/a")
    assert local == ("1" if killed_at == "branch" else "0"), "a commit before its data was pushed"
    monkeypatch.setattr(run_checkout, "_run", original)
    one_run("a", 21)
    assert run_branches(clones) == ["run/a"]
    assert is_up_to_date(clones.first.parent, f"clean-{killed_at}", "run/a")


def test_save_commits_nothing_when_the_data_cannot_be_pushed(clones: Clones) -> None:
    away = clones.remote.rename(clones.remote.with_name("away"))
    clones.remote.write_text("no folder", encoding="utf-8")
    try:
        with pytest.raises(UserError, match=r"dvc push.*runs/a stays, and the same run, started again, goes on"):
            one_run("a", 31)
        assert run_branches(clones) == []
        assert "steps: 31" in (clones.first / ".tohum/runs/a/dvc.lock").read_text(encoding="utf-8")
    finally:
        clones.remote.unlink()
        away.rename(clones.remote)
    assert "pushed to origin" in one_run("a", 31)


def test_save_makes_no_branch_when_nothing_changed(clones: Clones) -> None:
    with run_checkout.opened("a") as own:
        assert run_checkout.save(own, "nothing") == "nothing changed: no commit"
        run_checkout.close(own)
    assert git(clones.first, "branch", "--list", "run/*") == ""


def test_opened_takes_the_newer_commit_and_names_what_the_run_does_not_see(clones: Clones) -> None:
    theirs = clones.second
    (theirs / "source.txt").write_text("new\n", encoding="utf-8")
    git(theirs, "-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "--quiet", "--all", "--message", "new")
    git(theirs, "push", "--quiet")
    (clones.first / "source.txt").write_text("mine\n", encoding="utf-8")
    with run_checkout.opened("a") as own:
        assert own.start == git(theirs, "rev-parse", "HEAD")
        assert Path("source.txt").read_text(encoding="utf-8") == "new\n"
        assert own.notes == ("changes that are not committed are not part of the run: source.txt",)
    with run_checkout.opened("b", start="main") as own:
        assert own.start == git(clones.first, "rev-parse", "main")
    git(clones.first, "checkout", "--quiet", "source.txt")


def test_opened_shares_training_states_but_no_locks(clones: Clones) -> None:
    """A kill costs no more than in the working folder: the state is found by the next run, in its own checkout."""
    with run_checkout.opened("a"):
        Path(".tohum/state/key").mkdir()
        Path(".tohum/locks").mkdir()
    with run_checkout.opened("b"):
        assert Path(".tohum/state/key").is_dir()
        assert not Path(".tohum/locks").exists()
        Path(".tohum/state").stat()
    assert (clones.first / ".tohum/state/key").is_dir()


def test_opened_refuses_a_run_that_another_process_works_on(clones: Clones) -> None:
    code = (
        "from pipeline.orchestration import run_checkout as r\n"
        "with r.opened('a'):\n    print('open', flush=True)\n    input()\n"
    )
    with subprocess.Popen(
        ["python", "-c", code], cwd=clones.first, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="another process works on this run"), run_checkout.opened("a"):
            pass
        other.communicate("\n")


@pytest.mark.parametrize(
    ("enabled", "uri", "registers", "refused"),
    [
        (True, "sqlite:///mlflow.db", False, True),
        (False, "sqlite:///mlflow.db", True, True),
        (False, "sqlite:///mlflow.db", False, False),
        (True, "https://mlflow.example.org", True, False),
    ],
)
def test_require_server_refuses_a_store_that_only_the_checkout_sees(
    tmp_path: Path, enabled: bool, uri: str, registers: bool, refused: bool
) -> None:
    import yaml

    tracking = {"enabled": enabled, "uri": uri}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"runtime": {"tracking": tracking}}), encoding="utf-8")
    own = RunCheckout(tmp_path, tmp_path, "run/a", "", None, False, ())
    if refused:
        with pytest.raises(UserError, match=r"runtime.tracking.uri is sqlite:///mlflow.db.*server's address"):
            run_checkout.require_server(own, registers)
    else:
        run_checkout.require_server(own, registers)


def test_opened_names_a_folder_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no git repository with a commit"), run_checkout.opened("a"):
        pass
