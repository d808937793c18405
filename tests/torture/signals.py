"""A small training stage under its guard, stopped 50 times at random moments in every way a process can be.

Held: nothing of the stage lives on, no file of ours shows a traceback, and the next run ends with equal bits.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import psutil
import yaml

from pipeline.files import sha256_of
from tests import projects

PROMISE = (
    "SIGTERM, SIGINT or SIGKILL to dvc, guard or training at any moment: no orphan, and equal bits after the next run"
)
COUNT = 50
STEPS = 120
# What a stand-in for dvc does: it ignores an interrupt while its stage runs, and waits.
DVC = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


def environment() -> dict[str, str]:
    """Our code for a process in another folder."""
    return os.environ | {"PYTHONPATH": str(projects.ROOT), "OMP_NUM_THREADS": "1"}


def made(folder: Path) -> Path:
    """A project whose pretrain takes a second or two."""
    folder.mkdir()
    with chdir(folder):
        projects.small(folder)
        params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        params["pretrain"]["schedule"] |= {"steps": STEPS}
        params["pretrain"]["validation"] |= {"every": 25, "batches": 2}
        params["runtime"] |= {"checkpoint_every": 20, "progress": False}
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return folder


def start(project: Path) -> subprocess.Popen[str]:
    """The stand-in for dvc, the guard below it, the training below that."""
    guarded = [sys.executable, "-m", "pipeline.orchestration.guard", "stages.pretrain"]
    return subprocess.Popen(
        [sys.executable, "-c", DVC, *guarded],
        cwd=project,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def below(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes at work, by what they are."""
    found = {"dvc": psutil.Process(process.pid)}
    for child in found["dvc"].children(recursive=True):
        words = child.cmdline()
        if "stages.pretrain" in words:
            name = "guard" if "pipeline.orchestration.guard" in words else "training"
            found.setdefault(name, child)  # the guard's sentinel comes after it
    return found


def trainers(project: Path) -> list[int]:
    """Processes that train in the project; gone when the guard did its work."""
    found = psutil.process_iter(["pid", "cmdline", "cwd", "status"])
    return [
        one.info["pid"]
        for one in found
        if one.info["cwd"] == str(project)
        and "stages.pretrain" in (one.info["cmdline"] or [])
        and one.info["status"] != psutil.STATUS_ZOMBIE
    ]


def stopped(project: Path, rng: random.Random, whole_s: float) -> str:
    """Starts the stage and stops it at a random moment; what was done, in words."""
    process = start(project)
    if rng.random() < 0.8:  # else while it starts
        while not list(project.glob(".tohum/state/*/lock")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * whole_s)
    else:
        time.sleep(rng.random() * 2)
    number = rng.choice((signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
    done = f"{number.name} of nothing"
    try:
        at_work = below(process)
        target = rng.choice(sorted(at_work))
        if (target, number) == ("dvc", signal.SIGINT):
            target = "guard" if "guard" in at_work else "dvc"  # DVC ignores it, Ctrl-C reaches its whole group
        done = f"{number.name} of {target}"
        at_work[target].send_signal(number)
    except psutil.NoSuchProcess:
        pass
    process.wait()
    assert process.stderr is not None
    said = process.stderr.read() if number != signal.SIGKILL else ""
    # Python itself shows one if it is interrupted before it runs any file of ours.
    ours = "Traceback" in said and any(f"/{name}/" in said for name in ("stages", "pipeline", "site-packages"))
    return f"{done}: Traceback {said[-300:]}" if ours else done


def run(count: int, folder: Path) -> dict[str, Any]:
    """Stops, looks for orphans, runs on to the end, compares the model; every third time it is stopped twice."""
    project = made((folder / "project").absolute())
    process = start(project)
    assert process.wait() == 0, process.stderr and process.stderr.read()
    expected, whole_s = sha256_of(project / "models"), 2.0
    misses: list[str] = []
    kinds: dict[str, int] = {}
    resumed = 0
    for number in range(count):
        for name in ("models", "reports", ".tohum"):
            shutil.rmtree(project / name, ignore_errors=True)
        rng = random.Random(number)
        for _ in range(1 + (number % 3 == 0)):
            done = stopped(project, rng, whole_s)
            kind = done.partition(":")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
            deadline = time.monotonic() + 60
            while left := trainers(project):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
            if left or "Traceback" in done:
                misses.append(f"{number}: {done}; left: {left}")
        resumed += bool(list(project.glob(".tohum/state/*/step-*")))
        last = start(project)
        assert last.stderr is not None
        said = last.stderr.read()
        if last.wait() != 0 or sha256_of(project / "models") != expected:
            misses.append(f"{number}: {done}: exit {last.returncode}, {said[-150:]}")
        if litter := [str(path) for path in project.rglob("*.tmp") if ".tohum" not in path.parts]:
            misses.append(f"{number}: {done}: {litter[0]}")
    held = count - len({miss.partition(":")[0] for miss in misses})
    return {"tried": count, "held": held, "kinds": kinds, "with_a_state": resumed, "misses": misses[:5]}


if __name__ == "__main__":
    from tests.torture import main

    main(run, COUNT, PROMISE)
