"""A small DVC project with a remote, everything pushed: folders, single files, one out that DVC does not cache."""

import os
import subprocess
import sys
from pathlib import Path

GRAPH = """
stages:
  words:
    cmd: python make.py
    outs: [data/words, metrics.json, {record.json: {cache: false}}]
"""
MAKE = """
import pathlib, random
rng = random.Random(1)
for name in ("a.bin", "çay/b.bin", "çay/ışık.bin", "c.bin"):
    path = pathlib.Path("data/words") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rng.randbytes(2000))
pathlib.Path("metrics.json").write_text('{"accuracy": 0.5}')
pathlib.Path("record.json").write_text('{"seconds": 1.5}')
"""


def project(folder: Path) -> Path:
    """Makes and pushes it; the remote lies beside it. Returns the project's folder."""
    root = folder / "project"
    (root / "inputs").mkdir(parents=True)
    (root / "make.py").write_text(MAKE, encoding="utf-8")
    (root / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
    (root / "inputs/mine.csv").write_text("metin,etiket\nçay,1\n", encoding="utf-8")
    for command in ("init --no-scm", "remote add --default safe ../remote", "add inputs/mine.csv", "repro", "push"):
        dvc(root, *command.split())
    return root


def dvc(root: Path, *arguments: str) -> str:
    """Runs DVC in a project; what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
