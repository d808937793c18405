"""The whole graph, for real, small: two runs in different folders, one of them killed in the middle of training.

A user loses the promise of the project if this fails: the run can be repeated, and a kill costs nothing.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from pipeline.studies.guess import guess
from pipeline.studies.workspace import workspace

pytestmark = pytest.mark.slow
WORDS = ["ışık", "deniz", "yol", "ev", "kedi", "sabah", "akşam", "güzel", "büyük", "kırmızı", "gitti", "geldi", "gördü"]


HEAVY = {
    "torch", "mlflow", "great_expectations", "datasets", "pandas", "transformers", "tokenizers", "sklearn", "scipy",
    "matplotlib", "dvc", "prefect", "peft", "optuna", "opacus", "gigatoken", "rustbpe", "tiktoken", "pyarrow",
    "huggingface_hub", "requests",
}  # fmt: skip
"""What takes a tenth of a second or more to import."""
GATE = {"great_expectations", "pandas", "pyarrow", "requests", "scipy"}
# Arrow imports pandas wherever it converts values of Python, if it is installed: about half a second of a stage.
LOADED = {
    "code": {"pyarrow"},  # the columns of a file are checked against the schema of its kind
    "download": {"pandas", "pyarrow"},  # the hub's data sets need pandas
    "validate-raw": GATE,
    "tokenize": {"gigatoken", "pandas", "pyarrow", "rustbpe", "tiktoken"},
    "validate-tokens": GATE | {"tiktoken"},
    "sample": {"pandas", "pyarrow"},
    "validate-samples": GATE | {"tiktoken"},
    "pretrain": {"pandas", "pyarrow", "tiktoken", "torch"},
    "evaluate-base": {"pandas", "pyarrow", "tiktoken", "torch"},
    "validate-model-base": GATE,
    "report": {"matplotlib", "pyarrow"},
}
"""What each stage needs of it, and no more: a module too many costs every run its import."""
# Python runs this at the start of every process; a stage leaves the names of what it had loaded at its end.
WATCH = """
import atexit, json, pathlib, sys
def leave():
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and main.name.startswith("stages.") and main.name != "pipeline.orchestration.guard":
        name = "-".join([main.name.removeprefix("stages."), *sys.argv[1:]])
        names = sorted({module.partition(".")[0] for module in sys.modules})
        pathlib.Path(__file__).with_name(name + ".json").write_text(json.dumps(names))
atexit.register(leave)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def project(folder: Path) -> Path:
    """A try of a text of 300 paragraphs, with few steps, frequent checkpoints and no progress bars."""
    rng = random.Random(1)
    lines = (" ".join(rng.choice(WORDS) for _ in range(30)) + "." for _ in range(300))
    data = folder / "metin.txt"
    data.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    root = folder / "project"
    workspace(data, guess(data), root)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    params["runtime"] |= {"checkpoint_every": 10, "progress": False}
    params["pretrain"]["schedule"]["steps"] = 60
    params["pretrain"]["validation"]["every"] = 20
    (root / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=root, env=environment(), check=True)
    return root


def repro(root: Path, **more: str) -> subprocess.CompletedProcess:
    found = subprocess.run(["dvc", "repro"], cwd=root, env=environment() | more, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    return found


def loaded(folder: Path) -> dict[str, set[str]]:
    """Stage -> what it had loaded of HEAVY when it ended."""
    found = {path.stem: set(json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")}
    return {stage: modules & HEAVY for stage, modules in found.items()}


def hashes(root: Path) -> dict[str, str]:
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    return {
        out["path"]: out["md5"]
        for stage in lock["stages"].values()
        for out in stage["outs"]
        if not out["path"].startswith("reports/runs/")
    }


def trainers(root: Path) -> list[psutil.Process]:
    """Processes that train in this folder; others on the machine are none of the test's business."""
    found = psutil.process_iter(["cmdline", "cwd"])
    return [p for p in found if p.info["cwd"] == str(root) and "stages.pretrain" in (p.info["cmdline"] or [])]


def kill_in_training(root: Path) -> None:
    """Kills dvc with a signal that nobody can catch, once a state was saved."""
    running = subprocess.Popen(["dvc", "repro", "--quiet"], cwd=root, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(root.glob(".tohum/state/*/step-*/manifest.json")):
        assert running.poll() is None, "the run ended before it saved a state"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    while trainers(root):
        assert time.monotonic() < deadline, "a trainer outlived dvc"
        time.sleep(0.2)
    subprocess.run([sys.executable, "-m", "pipeline.orchestration.dvc_lock"], cwd=root, env=environment(), check=True)


def test_a_killed_run_ends_with_the_hashes_of_an_unbroken_one_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, cut = project(tmp_path / "whole"), project(tmp_path / "cut")
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch/sitecustomize.py").write_text(WATCH, encoding="utf-8")
    repro(whole, PYTHONPATH=os.pathsep.join([str(tmp_path / "watch"), os.environ.get("PYTHONPATH", "")]))
    assert loaded(tmp_path / "watch") == LOADED
    kill_in_training(cut)
    assert not (cut / "models/base").exists()
    repro(cut)
    record = json.loads((cut / "reports/runs/pretrain.json").read_text(encoding="utf-8"))
    assert record["resumed_at_step"] > 0
    assert hashes(cut) == hashes(whole)
    assert len(hashes(whole)) > 10
    again = repro(whole)
    assert "Data and pipelines are up to date" in again.stdout
    assert not list(cut.rglob("*.tmp"))
