"""The circle: a model is used, its use shows that it is wrong, it is retrained on that, and a person decides.

Everything is real: the server, its journal, the watch, Prefect with a worker, DVC and git with remotes, MLflow. Lost
otherwise: an alarm that nobody hears, a training on data that nobody can pull, or a model that promoted itself.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import scratch
from tests.circle import MODEL, NAME, Circle
from tests.prefect_server import PREFECT, running, until
from tests.two_clones import clone, git

pytestmark = pytest.mark.slow
TOHUM = (sys.executable, "-m", "pipeline.cli")


def test_use_of_a_model_ends_in_a_candidate_that_a_person_approves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in scratch.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect").mkdir()
    with running(tmp_path / "prefect") as server:
        circle = Circle(tmp_path, server)
        circle.make()
        with circle.process(*TOHUM, "ui"):
            mlflow = f"http://127.0.0.1:{circle.ports['mlflow']}/health"
            until(lambda: circle.answers(mlflow), 600, "MLflow did not start")
            circle.tohum("register")
            circle.promote("1")
            with circle.process(*TOHUM, "serve"):
                until(lambda: circle.answers(f"{circle.served}/health"), 600, "the server did not start")
                assert circle.version() == "1"
                circle.use(60)
                circle.deploy()
                with circle.process(*PREFECT, "worker", "start", "--type", "process", "--pool", "tohum"):
                    _circle(circle, tmp_path)


def _circle(circle: Circle, root: Path) -> None:
    """From the look that finds the alarm to the swapped server."""
    circle.start("tohum-watch/watch", model=MODEL)
    looked = circle.wait_for("tohum-watch", "Completed")
    assert looked["state"]["message"].startswith(f"{MODEL}: alarm, evidence:"), looked["state"]["message"]
    retrained = circle.wait_for("tohum-retrain", "Completed")
    assert retrained["parameters"]["model"] == MODEL
    waiting = circle.wait_for("tohum-review", "Suspended")
    shown = circle.prefect.artifact(f"tohum-review-{NAME}")
    assert "candidate version 2, champion version 1" in shown
    assert circle.version() == "1", "a model was promoted by nobody"

    branch = f"run/{retrained['id']}"
    folder = clone(root, "clean", branch)
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    assert "name: journal" in params
    assert "name: world" in params, "the old data is beside the new"
    assert scratch.dvc(folder, "pull", "--quiet").returncode == 0
    assert "up to date" in scratch.dvc(folder, "status").stdout
    assert git(circle.project, "status", "--porcelain") == ""

    answer = {"run_input": {"decision": "approve", "reason": "it learned from its users", "despite": "a tiny model"}}
    answered = circle.prefect.ask("POST", f"flow_runs/{waiting['id']}/resume", answer)
    assert answered["status"] == "ACCEPT"
    circle.wait_for("tohum-review", "Completed")
    until(lambda: circle.version() == "2", 300, "the server did not follow the promotion")
    ledger = subprocess.run(
        [*TOHUM, "ledger", MODEL], cwd=circle.project, env=circle.environment, capture_output=True, text=True
    ).stdout
    assert "an answer in Prefect's page" in ledger
