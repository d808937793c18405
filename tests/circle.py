"""A small project with all that the circle needs: a served champion, people, a watch, deployments and a reviewer.

Each step is one that a person, a client or a schedule takes; all go through the commands, HTTP or Prefect's API.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import yaml

from pipeline.paths import CODE as ROOT
from tests import damage, scratch
from tests.prefect_server import PREFECT, Server, until
from tests.two_clones import git

MODEL = "spam-lora"
NAME = f"tohum-{MODEL}"
_STAGES = (
    "code", "download", "validate raw", "tokenize", "validate tokens", "sample", "validate samples", "pretrain",
    f"finetune {MODEL}", *(f"{verb} {name}" for name in ("base", MODEL) for verb in ("evaluate", "validate model")),
    "report",
)  # fmt: skip
PATIENCE_S = 900


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Circle:
    """The project at `root`/project, with git's and DVC's remotes beside it."""

    root: Path
    prefect: Server
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in ("mlflow", "serving")})

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process: our ports, Prefect's server, no password of anybody else's."""
        own = {"TOHUM_MLFLOW_PORT": str(self.ports["mlflow"]), "TOHUM_DIR": str(self.project)}
        return self.prefect.environment | own

    def make(self) -> None:
        """The first model of the project, trained, committed and pushed."""
        self.project.mkdir()
        os.chdir(self.project)
        raw = damage.small_params()
        raw |= {"finetune": {MODEL: raw["finetune"][MODEL]}, "merge": {}}
        raw["evaluations"] = {name: raw["evaluations"][name] for name in ("base", MODEL)}
        raw["download"]["sources"]["world"] |= {"instructions": 0, "preferences": 0, "labelled": 220}
        raw["split"] |= {"validation": 0.3, "test": 0.3}  # the watch wants a hundred records to compare with
        # the registry is there; records of the stages' runs are left out, whose delivery is tested elsewhere
        raw["runtime"]["tracking"] |= {"uri": f"http://127.0.0.1:{self.ports['mlflow']}"}
        raw["register"]["models"] = [MODEL]
        raw["serving"] |= {"port": self.ports["serving"], "poll_seconds": 0.5}
        Path("params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        for name in ("dvc.yaml", ".dvcignore", ".gitignore", "prefect.yaml"):
            shutil.copy(ROOT / name, name)
        Path("inputs").mkdir()
        for name in ("pipeline", "stages"):
            shutil.copytree(ROOT / name, name, ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / "data").mkdir()
        git(self.project, "init", "--quiet", "--initial-branch", "main")
        for words in (("init", "--quiet"), ("remote", "add", "--default", "store", str(self.root / "data"))):
            assert scratch.dvc(self.project, *words).returncode == 0
        for stage in _STAGES:
            damage.run(stage)
        assert scratch.dvc(self.project, "commit", "--force", "--quiet").returncode == 0
        for words in (["config", "user.name", "ada"], ["config", "user.email", "ada@example.org"], ["add", "--all"],
                      ["commit", "--quiet", "--message", "first model"]):  # fmt: skip
            git(self.project, *words)
        git(self.root, "clone", "--quiet", "--bare", str(self.project), "origin.git")
        git(self.project, "remote", "add", "origin", str(self.root / "origin.git"))
        git(self.project, "push", "--quiet", "--set-upstream", "origin", "main")

    def tohum(self, *words: str, accepted: tuple[int, ...] = (0,)) -> str:
        """Output of a verb."""
        command = [sys.executable, "-m", "pipeline.cli", *words]
        done = subprocess.run(
            command, cwd=self.project, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in accepted, f"tohum {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def process(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A program in the background until the end of the block; its output goes to <last word>.log."""
        log: IO[bytes]
        with (self.root / f"{command[-1].replace('/', '-')}.log").open("ab") as log:
            running = subprocess.Popen(
                command, cwd=self.project, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(60)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()

    def answers(self, address: str) -> bool:
        """Whether a server answers."""
        try:
            return httpx.get(address, timeout=5).status_code < 500
        except httpx.HTTPError:
            return False

    @property
    def served(self) -> str:
        return f"http://127.0.0.1:{self.ports['serving']}"

    def version(self) -> str:
        """The version that the server answers with."""
        rows = httpx.get(f"{self.served}/v1/models", timeout=60).json()["data"]
        return str(next(row["version"] for row in rows if row["id"] == MODEL))

    def promote(self, version: str) -> str:
        """A person reads the review and approves what it showed."""
        shown = self.tohum("review", MODEL)
        (command,) = re.findall(rf"tohum promote ({MODEL}) ({version}) --sha256 ([0-9a-f]+)", shown)[-1:]
        return self.tohum("promote", command[0], command[1], "--sha256", command[2], "--reason", "the first")

    def use(self, count: int) -> None:
        """People send texts and allow them to be kept; later each turns out to be what the model did not say."""
        with httpx.Client(base_url=self.served, timeout=120) as client:
            labels = []
            for number in range(count):
                text = f"{number}. mesaj: köyde {number * 7919 % 101} kişi çay içti, ödül {number * 31 % 17} lira"
                body = {"model": MODEL, "input": text, "store": True, "user": f"u{number % 9}"}
                answer = client.post("/v1/classify", json=body)
                assert answer.status_code == 200, answer.text
                given = answer.json()
                label = given["data"][0]["label"]
                labels.append((given["data"][0]["id"], "ham" if label == "spam" else "spam"))
            for request, label in labels:
                answer = client.post("/v1/labels", json={"request": request, "label": label})
                assert answer.status_code == 200, answer.text

    def deploy(self) -> None:
        """Work pool, deployments and automations, as `tohum worker` makes them."""
        for words in (["work-pool", "create", "tohum", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
            done = subprocess.run(
                [*PREFECT, *words], cwd=self.project, env=self.environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr

    def start(self, deployment: str, **parameters: Any) -> str:
        """Starts a run of a deployment; its id."""
        name = deployment.rpartition("/")[2]
        found = self.prefect.find("deployments", deployments={"name": {"any_": [name]}})
        created = self.prefect.ask("POST", f"deployments/{found[0]['id']}/create_flow_run", {"parameters": parameters})
        return str(created["id"])

    def run_of(self, flow: str) -> dict[str, Any]:
        """The newest run of a flow; {} where there is none."""
        runs = self.prefect.find("flow_runs", flows={"name": {"any_": [flow]}}, sort="START_TIME_DESC")
        return runs[0] if runs else {}

    def wait_for(self, flow: str, state: str) -> dict[str, Any]:
        """Waits until the newest run of a flow is in a state; fails with its message where it ends in another."""
        ended = {"Completed", "Failed", "Crashed", "Cancelled"} - {state}
        until(lambda: self.run_of(flow).get("state_name") in {state, *ended}, PATIENCE_S, f"{flow} is not {state}")
        run = self.run_of(flow)
        assert run["state_name"] == state, f"{flow}: {run['state_name']}: {run['state']['message']}"
        return run
