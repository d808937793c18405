"""A colleague gets the results: lock in git, data on a remote; nothing that has run anywhere runs again.

Lost otherwise: after a clone and a pull the base model trains again, and so does every value that was tried before.
"""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.studies.guess import guess
from pipeline.studies.workspace import ROOT, workspace
from tests.stages.test_pipeline import WORDS, environment

pytestmark = pytest.mark.slow
STEPS = "pretrain.schedule.steps"


def run(root: Path, *command: str) -> str:
    """What the command prints; it must end well."""
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ran(root: Path, *more: str) -> list[str]:
    """The stages that `dvc repro` ran (not: skipped, or restored from the run cache)."""
    lines = run(root, "dvc", "repro", *more).splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def commit(root: Path) -> None:
    run(root, "git", "add", "--all")
    run(root, "git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message", "results")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in git whose graph has run on a file that DVC tracks, committed and pushed to a remote folder."""
    folder = tmp_path_factory.mktemp("share")
    rng = random.Random(1)
    data = folder / "metin.txt"
    texts = (" ".join(rng.choice(WORDS) for _ in range(30)) + "." for _ in range(300))
    data.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    root = folder / "owner"
    workspace(data, guess(data), root)
    shutil.copy(ROOT / ".gitignore", root)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"]["progress"] = False
    params["pretrain"]["schedule"] |= {"steps": 6, "warmup_steps": 1}
    params["pretrain"]["validation"]["every"] = 3
    (root / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True, sort_keys=False), encoding="utf-8")
    run(root, "git", "init", "--quiet", "--initial-branch=main")
    run(root, "dvc", "init", "--quiet")
    run(root, "dvc", "remote", "add", "--default", "shared", str(folder / "remote"))
    run(root, "dvc", "add", "inputs/metin.txt")
    assert len(ran(root)) > 8
    commit(root)
    run(root, "dvc", "push", "--run-cache")
    return root


def test_a_clone_that_pulled_runs_nothing(owner: Path) -> None:
    tracked = run(owner, "git", "ls-files").split()
    assert {"dvc.lock", "inputs/metin.txt.dvc"} <= set(tracked)
    assert not {name for name in tracked if name.startswith(("data/", "models/", "reports/")) or name.endswith(".txt")}
    clone = owner.with_name("clone")
    run(owner.parent, "git", "clone", "--quiet", str(owner), str(clone))
    run(clone, "dvc", "pull", "--quiet")
    run(clone, "dvc", "status", "--quiet")  # as a CI job would ask: 1 if anything is stale
    assert ran(clone) == []
    for path in ("models/base/model.safetensors", "reports/runs/pretrain.json", "inputs/metin.txt"):
        assert (clone / path).read_bytes() == (owner / path).read_bytes()


def test_a_clone_that_has_the_run_cache_restores_what_another_checkout_ran(owner: Path) -> None:
    """Without dvc.lock even: equal inputs are enough."""
    clone = owner.with_name("unlocked")
    run(owner.parent, "git", "clone", "--quiet", str(owner), str(clone))
    run(clone, "dvc", "fetch", "--run-cache", "--quiet")
    run(clone, "dvc", "checkout", "--quiet", "inputs/metin.txt.dvc")
    (clone / "dvc.lock").unlink()
    assert ran(clone) == []
    assert (clone / "dvc.lock").read_bytes() == (owner / "dvc.lock").read_bytes()


def test_an_applied_experiment_and_a_value_set_back_run_nothing(owner: Path) -> None:
    before = (owner / "dvc.lock").read_bytes()
    params = (owner / "params.yaml").read_bytes()
    out = run(owner, "dvc", "exp", "run", "--name", "shorter", "--set-param", f"{STEPS}=4")
    assert "Running stage 'pretrain'" in out
    assert "Running stage 'tokenize'" not in out
    tried = (owner / "dvc.lock").read_bytes()
    run(owner, "git", "checkout", "--quiet", "--", ".")
    assert ran(owner) == []
    assert (owner / "dvc.lock").read_bytes() == before
    run(owner, "dvc", "exp", "apply", "shorter")
    assert ran(owner) == []
    assert (owner / "dvc.lock").read_bytes() == tried
    (owner / "params.yaml").write_bytes(params)
    assert ran(owner) == []
    assert (owner / "dvc.lock").read_bytes() == before
