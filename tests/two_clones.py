"""Two clones of a project of two tiny stages, with a bare git remote and a folder as DVC's remote."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests import scratch

STAGES = """
stages:
  one:
    cmd: cat params.yaml > one
    deps: [source.txt]
    params: [steps]
    outs: [one]
    meta: {cores: 1}
  two:
    cmd: cat one > two
    deps: [one]
    outs: [two]
    meta: {cores: 1}
"""


@dataclass(frozen=True)
class Clones:
    """The folders."""

    origin: Path
    remote: Path
    first: Path
    second: Path


def git(folder: Path, *words: str) -> str:
    """Output of a git command that must succeed."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def make(root: Path, params: str = "steps: 1\n", stages: str = STAGES) -> Clones:
    """Makes them below `root`; DVC's remote is named by a path relative to a clone."""
    seed = scratch.template(root / "seed")
    remote = root / "data"
    remote.mkdir()
    for name, text in {"params.yaml": params, "dvc.yaml": stages, ".gitignore": "/.tohum/\n/log\n"}.items():
        (seed / name).write_text(text, encoding="utf-8")
    assert scratch.dvc(seed, "remote", "add", "--default", "store", str(remote)).returncode == 0
    for words in (["config", "user.name", "a"], ["config", "user.email", "a@example.org"], ["add", "--all"],
                  ["commit", "--quiet", "--message", "start"]):  # fmt: skip
        git(seed, *words)
    git(root, "clone", "--quiet", "--bare", str(seed), "origin.git")
    for name in ("first", "second"):
        clone(root, name)
    return Clones(root / "origin.git", remote, root / "first", root / "second")


def clone(root: Path, name: str, branch: str = "main") -> Path:
    """A fresh clone of the bare repository."""
    git(root, "clone", "--quiet", "--branch", branch, "origin.git", name)
    return root / name


def run_branches(clones: Clones) -> list[str]:
    """The branches of runs on the git remote."""
    return git(clones.origin, "for-each-ref", "--format=%(refname:short)", "refs/heads/run").split()


def is_up_to_date(root: Path, name: str, branch: str) -> bool:
    """Whether a clean clone of a branch, after `dvc pull`, says that nothing changed."""
    folder = clone(root, name, branch)
    pulled = scratch.dvc(folder, "pull", "--quiet")
    status = scratch.dvc(folder, "status")
    return pulled.returncode == 0 and "up to date" in status.stdout and not git(folder, "status", "--porcelain")
