"""A training stage on a machine that has no more to give: a sentence, nothing lost, and the next run continues."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.files import sha256_of
from tests import projects, scratch

pytestmark = pytest.mark.slow
STEPS = 20
# The stage as it is, but for one thing: the disk is full when the model's folder is written.
FULL_AT_THE_END = """
import errno, runpy
from pipeline.model import checkpoint
def full(*arguments, **named):
    raise OSError(errno.ENOSPC, "No space left on device", "models/base/model.safetensors")
checkpoint.save = full
runpy.run_module("stages.pretrain", run_name="__main__")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples, and a recipe of a few updates; nothing trained yet."""
    folder = tmp_path_factory.mktemp("faults")
    with chdir(folder):
        projects.small(folder)
        change(folder, tracking=False)
    return folder


@pytest.fixture(scope="module")
def expected(project: Path) -> str:
    """The hash of the model that a run without a fault makes."""
    assert pretrain(project).returncode == 0
    found = sha256_of(project / "models/base")
    fresh(project)
    return found


def change(folder: Path, tracking: bool, steps: int = STEPS) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    params["pretrain"]["schedule"] |= {"steps": steps, "warmup_steps": 2}
    params["pretrain"]["validation"] |= {"every": 10, "batches": 1}
    params["runtime"] |= {"checkpoint_every": 5, "progress": False}
    params["runtime"]["tracking"]["enabled"] = tracking
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def fresh(project: Path) -> None:
    for name in ("models", "reports", ".tohum"):
        shutil.rmtree(project / name, ignore_errors=True)


def pretrain(project: Path, *command: str, **limits: int) -> subprocess.CompletedProcess[str]:
    """Runs the stage, or another command in its place, under limits of the system (`FSIZE=...`)."""

    def limited() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))

    return subprocess.run(
        [sys.executable, *(command or ("-m", "stages.pretrain"))],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(projects.ROOT), "OMP_NUM_THREADS": "1"},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )


def resumed_at(project: Path) -> int:
    return int(json.loads((project / "reports/runs/pretrain.json").read_text(encoding="utf-8"))["resumed_at_step"])


GRAPH = """
stages:
  pretrain:
    cmd: python -m pipeline.orchestration.guard stages.pretrain
    params: [pretrain]
    outs: [models/base]
"""


def test_an_interrupt_of_dvc_saves_the_training(project: Path, expected: str) -> None:
    """Ctrl-C reaches dvc, which ignores it while a stage runs, and the guard, which hands it on."""
    fresh(project)
    change(project, tracking=False, steps=400)
    (project / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    environment = scratch.environment()
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=project, env=environment, check=True
    )
    command = [sys.executable, "-m", "dvc", "repro"]
    with (project / "said.txt").open("w") as said:
        running = subprocess.Popen(
            command, cwd=project, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        while not list(project.glob(".tohum/state/*/step-*")):
            assert running.poll() is None, (project / "said.txt").read_text()
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait() != 0
    said_text = (project / "said.txt").read_text()
    stopped = re.search(r"base: stopped after update (\d+)", said_text)
    assert stopped, said_text
    assert "error: interrupted; the next `dvc repro` continues" in said_text
    assert "Traceback" not in said_text
    subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
    assert resumed_at(project) == int(stopped[1]) > 0
    change(project, tracking=False)


def test_no_file_may_grow(project: Path, expected: str) -> None:
    """As on a full disk: each state costs a warning, the training goes on, the end is a sentence."""
    fresh(project)
    done = pretrain(project, FSIZE=16_000)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["warning"] * 4 + ["error"]
    assert "the state of step 5 could not be saved in" in lines[0]
    assert "File too large; free space there, then run again" in lines[-1]
    assert not (project / "models/base").exists()
    assert not list(project.rglob("*.tmp"))


def test_a_disk_that_is_full_at_the_end_costs_no_update(project: Path, expected: str) -> None:
    fresh(project)
    done = pretrain(project, "-c", FULL_AT_THE_END)
    assert done.returncode == 1
    assert done.stderr == (
        "error: models/base/model.safetensors: No space left on device; free space there, then run again\n"
    )
    assert pretrain(project).returncode == 0
    assert resumed_at(project) == STEPS
    assert sha256_of(project / "models/base") == expected


def test_no_descriptors_are_left(project: Path, expected: str) -> None:
    fresh(project)
    done = pretrain(project, NOFILE=6)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Too many open files; raise the limit (`ulimit -n 4096`)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def garbage(project: Path) -> Iterator[Path]:
    """A tracking database that is none; the sender that the stage starts is ended."""
    change(project, tracking=True)
    (project / "mlflow.db").write_bytes(b"no database" * 500)
    yield project / "mlflow.db"
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(project) and "pipeline.tracking.sender" in (process.info["cmdline"] or []):
            process.kill()
    change(project, tracking=False)


def test_a_tracking_database_that_is_none_stops_no_training(project: Path, expected: str, garbage: Path) -> None:
    """What was to be delivered waits in .tohum/tracking."""
    fresh(project)
    done = pretrain(project)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sha256_of(project / "models/base") == expected
    (told,) = (project / ".tohum/tracking").glob("*.jsonl")
    assert json.loads(told.read_text(encoding="utf-8").splitlines()[-1])["status"] == "FINISHED"
