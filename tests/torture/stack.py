"""Processes of `tohum stack` killed with SIGKILL, one or all at once, and the whole stack deleted and restored.

Before each fault a run and a file go to MLflow and a variable to Prefect. After it, everything that was ever
acknowledged must be there. Each fourth fault deletes `.tohum/stack` after a backup.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import requests

from tests import scratch
from tests.torture import main

PROMISE = "no run, file or variable is lost when processes of the stack are killed, or when it is deleted and restored"
COUNT = 12
VICTIMS = ("postgres", "mlflow", "prefect", "supervisor", "all")


class Stack:
    """A stack in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("postgres", "mlflow", "prefect"), _free_ports(3), strict=True))
        ports = {f"TOHUM_{name.upper()}_PORT": str(port) for name, port in self.ports.items()}
        self.environment = scratch.environment() | ports | {"PREFECT_HOME": str(folder / "prefect")}

    def tohum(self, *words: str) -> str:
        """Output of a verb that must succeed."""
        command = [sys.executable, "-m", "pipeline.cli", "stack", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, server: str, method: str, path: str, content: Any = None) -> Any:
        """The answer of MLflow or Prefect; raises while it does not answer."""
        line = (self.folder / ".tohum/secrets" / server).read_text(encoding="utf-8").strip()
        answer = requests.request(
            method,
            f"http://127.0.0.1:{self.ports[server]}/{path}",
            json=content if not isinstance(content, bytes) else None,
            data=content if isinstance(content, bytes) else None,
            headers={"Authorization": f"Basic {b64encode(line.encode()).decode()}"},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json() if "json" in answer.headers.get("content-type", "") else answer.content

    def write(self, number: int) -> None:
        """A run, a file and a variable."""
        run = {"experiment_id": "0", "run_name": f"run-{number}"}
        self.ask("mlflow", "POST", "api/2.0/mlflow/runs/create", run)
        self.ask("mlflow", "PUT", f"api/2.0/mlflow-artifacts/artifacts/kept/{number}.txt", f"file {number}".encode())
        self.ask("prefect", "POST", "api/variables/", {"name": f"variable_{number}", "value": number})

    def missing(self, count: int) -> list[str]:
        """What is not there of the first `count`."""
        found = self.ask("mlflow", "POST", "api/2.0/mlflow/runs/search", {"experiment_ids": ["0"], "max_results": 1000})
        names = {one["info"]["run_name"] for one in found.get("runs", [])}
        gone = [f"run-{n}" for n in range(count) if f"run-{n}" not in names]
        variables = {one["name"] for one in self.ask("prefect", "POST", "api/variables/filter", {"limit": 200})}
        gone += [f"variable_{n}" for n in range(count) if f"variable_{n}" not in variables]
        for n in range(count):
            path = f"api/2.0/mlflow-artifacts/artifacts/kept/{n}.txt"
            if self.ask("mlflow", "GET", path) != f"file {n}".encode():
                gone.append(f"{n}.txt")
        return gone

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The living processes by service; `supervisor` is the one above them."""
        pid = int((self.folder / ".tohum/stack/supervisor.lock").read_text(encoding="ascii"))
        found: dict[str, list[psutil.Process]] = {"supervisor": [psutil.Process(pid)]}
        for child in psutil.Process(pid).children():
            words = " ".join(child.cmdline())
            name = next((name for name in ("postgres", "mlflow", "prefect") if name in words.split("guard.py")[-1]), "")
            found[name] = [child, *child.children(recursive=True)]
        return found

    def kill(self, victim: str) -> None:
        """Kills a service's processes, or all, at once."""
        processes = self.processes()
        chosen = [one for name, ones in processes.items() if victim in (name, "all") for one in ones]
        for process in chosen:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(chosen, timeout=30)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def run(count: int, folder: Path) -> dict[str, Any]:
    """Faults one after the other; each must leave all that was written."""
    folder.chmod(0o711)  # where root runs this, another user runs PostgreSQL
    place = folder / "project"
    place.mkdir(mode=0o755)
    stack, draw = Stack(place), random.Random(5)
    held, misses, done = 0, [], []
    stack.tohum("up")
    try:
        for number in range(count):
            stack.write(number)
            fault = "delete and restore" if number % 4 == 3 else draw.choice(VICTIMS)
            if number % 4 == 3:
                stack.tohum("backup", f"backup-{number}.tar")
                stack.kill("all")
                shutil.rmtree(place / ".tohum")
                stack.tohum("restore", f"backup-{number}.tar")
            else:
                stack.kill(fault)
            began = time.monotonic()
            stack.tohum("up")
            gone = stack.missing(number + 1)
            done.append({"fault": fault, "back_after_s": round(time.monotonic() - began)})
            held += not gone
            misses += [f"{fault}: {', '.join(gone)}"] if gone else []
        mode = os.stat(place / ".tohum/secrets/postgres").st_mode & 0o777
        misses += [f"secrets have mode {mode:o}"] if mode != 0o600 else []
    finally:
        stack.tohum("down")
    return {"tried": count, "held": held, "misses": misses, "faults": done}


if __name__ == "__main__":
    main(run, COUNT, PROMISE)
