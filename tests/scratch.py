"""A small DVC project in a scratch folder: what the tests of the flow, the plan and the graph run on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.paths import CODE as ROOT

BIN = Path(sys.executable).parent

PARAMS = "seed: 1\nfan:\n  left: {value: 1}\n  right: {value: 2}\n"
STAGES = """
stages:
  one:
    cmd: mkdir -p out && cat params.yaml | head -1 > out/one && sh say.sh one
    deps: [source.txt]
    params: [seed]
    outs: [out]
    meta: {retries: 0, timeout_s: 60, tags: [network], cores: 1}
  fan:
    foreach: ${fan}
    do:
      cmd: sh say.sh ${key} && echo ${item.value} $(cat out/one) > fan-${key}
      deps: [out/one]
      params: ["fan.${key}"]
      outs: ["fan-${key}"]
      meta: {cores: 1}
  last:
    cmd: sh say.sh last && cat fan-left fan-right > last
    deps: [fan-left, fan-right]
    outs: [last]
"""
# Every stage notes its start and end, so that the tests see the order and what ran side by side.
SAY = 'echo "start $1" >> log; sleep 0.3; echo "end $1" >> log\n'


def environment() -> dict[str, str]:
    """The variables a child needs: our code and our tools, nobody's telemetry."""
    paths = os.pathsep.join([str(BIN), os.environ["PATH"]])
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "SHELL": "/bin/sh"}
    return {**os.environ, **quiet, "PATH": paths, "PYTHONPATH": str(ROOT)}


def template(folder: Path) -> Path:
    """Makes the project in `folder`, nothing run yet."""
    folder.mkdir()
    git = ["git", "-c", "init.defaultBranch=main"]
    subprocess.run([*git, "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True, env=environment())
    for name, text in {
        "params.yaml": PARAMS,
        "dvc.yaml": STAGES,
        "say.sh": SAY,
        "source.txt": "hello\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def dvc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs dvc in a project."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, encoding="utf-8", check=False)


def copies(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """A function that copies a project into the test's folder and goes there."""

    def copy() -> Path:
        folder = tmp_path / "project"
        shutil.copytree(made, folder, symlinks=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", environment()["PATH"])
        return folder

    return copy
