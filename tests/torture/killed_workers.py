"""Workers killed with SIGKILL while their runs are Running or Pending, and healthy runs on a busy machine, in Prefect.

A process sees nothing of its own SIGKILL, so the server has to notice: the automations of `tohum worker`
(pipeline/orchestration/automations.py). `--count` runs are killed, half of them in each state, and as many healthy ones
run while every core is busy. Seconds are from the kill to Crashed.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests import scratch
from tests.prefect_server import PREFECT, Server, running, until
from tests.torture import main

PROMISE = "a run whose worker is killed is Crashed and its slot free within 180 s; no healthy run is taken for dead"
COUNT = 20
LIMIT_S = 180
HEALTHY_S = 300
"""Length of a healthy run: more than two silences that would count as a death."""
FLOW = """
import time
from prefect import flow

@flow
def sleeper(seconds: float = 900) -> None:
    time.sleep(seconds)
"""


def deploy(server: Server, folder: Path, slots: int) -> dict[str, str]:
    """Makes a pool, the deployments `runs` and `hangs` (which hangs before its flow starts), and the automations."""
    pool = yaml.safe_load((scratch.ROOT / "prefect.yaml").read_text(encoding="utf-8"))["definitions"]["pool"]
    common = {"entrypoint": "sleeper.py:sleeper", "tags": ["tohum"], "work_pool": pool, "concurrency_limit": slots}
    here = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    hang = {"prefect.deployments.steps.run_shell_script": {"script": "sleep 900"}}
    deployments = [{"name": "runs", **common, "pull": [here]}, {"name": "hangs", **common, "pull": [hang, here]}]
    (folder / "sleeper.py").write_text(FLOW, encoding="utf-8")
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"name": "t", "deployments": deployments}), encoding="utf-8")
    for words in (["work-pool", "create", pool["name"], "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        command(server, folder, [*PREFECT, *words])
    make = "from pipeline.orchestration import automations; automations.make(); automations.make()"
    command(server, folder, [sys.executable, "-c", make])
    return {deployed["name"]: deployed["id"] for deployed in server.find("deployments")}


def command(server: Server, folder: Path, words: list[str]) -> None:
    """Runs a program against the server."""
    done = subprocess.run(words, cwd=folder, env=server.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def start(server: Server, deployment: str, count: int, **parameters: Any) -> list[str]:
    """Ids of new runs."""
    at = f"deployments/{deployment}/create_flow_run"
    return [server.ask("POST", at, {"parameters": parameters})["id"] for _ in range(count)]


def states(server: Server, runs: list[str]) -> list[str]:
    """The state of each run."""
    found = server.find("flow_runs", flow_runs={"id": {"any_": runs}}, limit=200)
    return sorted(str(run["state_name"]) for run in found)


def worker(server: Server, folder: Path) -> subprocess.Popen[bytes]:
    """A worker in a session of its own."""
    words = [*PREFECT, "worker", "start", "--pool", "tohum", "--type", "process"]
    with (folder / "worker.log").open("ab") as log:
        return subprocess.Popen(
            words, cwd=folder, env=server.environment, stdout=log, stderr=log, start_new_session=True
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a worker and the processes of its runs at once, as the end of their machine does."""
    everything = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in everything:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def killed(server: Server, folder: Path, deployment: str, state: str, count: int) -> list[float | None]:
    """Seconds from the kill until each run is Crashed; None for one that is not in time."""
    runs = start(server, deployment, count)
    process = worker(server, folder)
    try:
        until(lambda: states(server, runs) == [state] * count, 600, f"not all runs are {state}")
        time.sleep(1)
    finally:
        end(process)
    began, seen = time.monotonic(), dict[str, float]()
    while len(seen) < count and time.monotonic() - began < LIMIT_S:
        for run in server.find("flow_runs", flow_runs={"id": {"any_": runs}}, limit=200):
            if run["state_name"] == "Crashed":
                seen.setdefault(run["id"], time.monotonic() - began)
        time.sleep(1)
    return [seen.get(run) for run in runs]


def free_slots(server: Server, deployment: str) -> bool:
    """Whether no run holds a slot of the deployment."""
    deployed = server.ask("GET", f"deployments/{deployment}")
    return bool(deployed["global_concurrency_limit"]["active_slots"] == 0)


def healthy(server: Server, folder: Path, deployment: str, count: int) -> int:
    """The number of runs that complete while every core is busy."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    process = worker(server, folder)
    runs = start(server, deployment, count, seconds=HEALTHY_S)
    ended = {"Completed", "Crashed", "Failed", "Cancelled"}
    try:
        until(lambda: set(states(server, runs)) <= ended, 3 * HEALTHY_S + 600, "the healthy runs did not end")
    finally:
        end(process)
        for burner in burners:
            burner.kill()
            burner.wait()
    return states(server, runs).count("Completed")


def run(count: int, folder: Path) -> dict[str, Any]:
    """Half of the runs are killed Running, half Pending; then as many healthy ones."""
    running_count = count // 2
    with running(folder) as server:
        place = folder / "project"
        place.mkdir()
        ids = deploy(server, place, 2 * count)
        seconds = killed(server, place, ids["runs"], "Running", running_count)
        pending = killed(server, place, ids["hangs"], "Pending", count - running_count)
        free = free_slots(server, ids["runs"]) and free_slots(server, ids["hangs"])
        alive = healthy(server, place, ids["runs"], count)
    times = [second for second in seconds + pending if second is not None]
    misses = [f"{name} run not Crashed in {LIMIT_S} s" for name, found in (("Running", seconds), ("Pending", pending))
              for second in found if second is None]  # fmt: skip
    misses += [] if free else ["slots are still held"]
    misses += [f"{count - alive} healthy runs did not complete"] if alive < count else []
    return {
        "tried": 2 * count,
        "held": (len(times) if free else 0) + alive,
        "misses": misses,
        "crashed_after_s": {
            "Running": [round(second) for second in seconds if second is not None],
            "Pending": [round(second) for second in pending if second is not None],
        },
        "healthy_completed": alive,
    }


if __name__ == "__main__":
    main(run, COUNT, PROMISE)
