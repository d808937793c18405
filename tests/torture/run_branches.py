"""Runs of two clones with a branch each, killed with SIGKILL at random moments and started again.

Two clones share a bare git repository and a folder as DVC's remote, and run side by side. Each run is killed once or
not at all, then started again until it ends. After each kill no branch on the git remote may lack its data; at the end
every run's branch is there, `main` is as it was, and a clean clone of each branch is up to date after `dvc pull`.
"""

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import scratch, two_clones
from tests.torture import main
from tests.two_clones import Clones, git, is_up_to_date, run_branches

PROMISE = "every run ends as a branch with its data, whatever was killed; none on main, none lost"
COUNT = 20
SECONDS = 12.0
"""Latest moment of a kill."""
RUN = """
import subprocess, sys
from pathlib import Path
from pipeline.orchestration import run_checkout
with run_checkout.opened(sys.argv[1]) as own:
    Path("params.yaml").write_text(f"steps: {sys.argv[2]}\\n")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], check=True)
    run_checkout.save(own, f"Run {sys.argv[1]}")
    run_checkout.close(own)
"""


def one_run(folder: Path, number: int, kill_after: float | None) -> int:
    """Starts a run until it ends; the first start is killed after so many seconds. Returns the number of starts."""
    for attempt in range(1, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, f"run-{number}", str(100 + number)],
            cwd=folder,
            env=scratch.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, said = process.communicate(timeout=kill_after if attempt == 1 else None)
        except subprocess.TimeoutExpired:
            subprocess.run(["kill", "-KILL", f"-{process.pid}"], check=False)
            process.communicate()
            continue
        if process.returncode == 0:
            return attempt
        sys.stderr.write(f"run-{number}: {said.decode(errors='replace')[-500:]}\n")
        time.sleep(1)
    return 0


def lane(folder: Path, numbers: list[int], seed: int) -> dict[int, int]:
    """The runs of one clone, one after the other; the number of starts of each, 0 for one that never ended."""
    draw, done = random.Random(seed), {}
    for number in numbers:
        done[number] = one_run(folder, number, draw.uniform(1, SECONDS) if draw.random() < 0.7 else None)
    return done


def run(count: int, folder: Path) -> dict[str, Any]:
    """Half of the runs in each clone, at the same time."""
    clones: Clones = two_clones.make(folder)
    before = git(clones.origin, "rev-parse", "main")
    with ThreadPoolExecutor(2) as pool:
        lanes = [pool.submit(lane, clones.first, list(range(0, count, 2)), 1),
                 pool.submit(lane, clones.second, list(range(1, count, 2)), 2)]  # fmt: skip
        starts = {number: n for done in lanes for number, n in done.result().items()}
    branches = set(run_branches(clones))
    held, misses = 0, []
    for number in range(count):
        branch = f"run/run-{number}"
        if not starts[number] or branch not in branches:
            misses.append(f"{branch} is lost")
        elif not is_up_to_date(folder, f"clean-{number}", branch):
            misses.append(f"{branch} lacks data or says that something changed")
        elif git(clones.origin, "show", f"{branch}:params.yaml") != f"steps: {100 + number}":
            misses.append(f"{branch} is another run's")
        else:
            held += 1
    if git(clones.origin, "rev-parse", "main") != before:
        misses.append("main has moved")
    left = [
        path.name for one in (clones.first, clones.second) for path in (one / ".tohum/runs").iterdir() if path.is_dir()
    ]
    misses += [f"{name}: its folder stayed" for name in left]
    return {"tried": count, "held": held if len(misses) == count - held else 0, "misses": misses,
            "killed": sum(n > 1 for n in starts.values())}  # fmt: skip


if __name__ == "__main__":
    main(run, COUNT, PROMISE)
