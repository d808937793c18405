"""The deployments of prefect.yaml and their automations, on a real Prefect server; no worker runs.

Lost otherwise: a slot that a dead run holds for ever, a healthy training that is declared dead, or ten trainings for
one alarm.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests import scratch
from tests.prefect_server import PREFECT, Server, running, until

pytestmark = pytest.mark.slow
SILENT_S, START_S = 30, 10
"""In place of minutes; a heartbeat that a busy machine delays by half of it is still in time."""
MAKE = f"""
from pipeline.orchestration import automations
automations.SILENT_S, automations.START_S = {SILENT_S}, {START_S}
automations.make()
automations.make()
"""
WATCH = """
import json, os, sys
if sys.orig_argv[1:4] == ["-m", "pipeline.cli", "watch"]:
    assert sys.orig_argv[4:] == ["spam-lora", "--once", "--json"], sys.orig_argv
    print("a warning of some library")
    look = {"model": "spam-lora", "verdict": "alarm", "evidence": ["input", "quality"], "episode": "spam-lora-3"}
    print(json.dumps(look), flush=True)
    os._exit(3)
"""
"""`tohum watch` of a model that has an alarm: sitecustomize.py."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("prefect")) as started:
        yield started


@pytest.fixture(scope="module")
def deployed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The deployments by name, made as `tohum worker` makes them."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "prefect.yaml").write_bytes((scratch.ROOT / "prefect.yaml").read_bytes())
    (folder / "pipeline").symlink_to(scratch.ROOT / "pipeline")
    environment = server.environment | {"TOHUM_DIR": str(folder)}
    for words in (["work-pool", "create", "tohum", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        done = subprocess.run([*PREFECT, *words], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([sys.executable, "-c", MAKE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {found["name"]: found for found in server.find("deployments")}


def send(server: Server, *events: dict[str, Any]) -> None:
    """Sends events as a client does."""
    now = datetime.now(UTC).isoformat()
    server.ask("POST", "events", [{"occurred": now, "id": str(uuid4()), "payload": {}, **event} for event in events])


def drift(model: str, episode: str) -> dict[str, Any]:
    return {
        "event": "tohum.drift",
        "resource": {"prefect.resource.id": f"tohum.model.{model}"},
        "payload": {"model": model, "episode": episode, "evidence": "fewer right answers"},
    }


def runs_of(server: Server, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    return server.find("flow_runs", deployments={"id": {"any_": [deployment["id"]]}})


def test_deployments_are_parametrised_and_their_schedules_are_off(deployed: dict[str, dict[str, Any]]) -> None:
    assert set(deployed) == {"local", "train", "refresh-data", "watch", "retrain-on-drift", "review"}
    for name in ("local", "train"):
        assert {"targets", "force", "profile", "set"} <= set(deployed[name]["parameters"])
    for name in ("train", "refresh-data", "watch"):
        assert [schedule["active"] for schedule in deployed[name]["schedules"]] == [False]
    assert all(
        found["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30" for found in deployed.values()
    )


def test_automations_are_made_once_and_renewed(server: Server, deployed: dict[str, dict[str, Any]]) -> None:
    names = sorted(found["name"] for found in server.ask("POST", "automations/filter", {}))
    assert names == [
        "tohum: a run that has gone silent is Crashed",
        "tohum: a run that never started is Crashed",
        "tohum: drift of a served model starts a retraining",
    ]


def test_ten_events_start_one_retraining_with_the_alarms_model(
    server: Server, deployed: dict[str, dict[str, Any]]
) -> None:
    retraining = deployed["retrain-on-drift"]
    send(server, *(drift("chat-lora", "chat-lora-1") for _ in range(10)))
    until(lambda: runs_of(server, retraining), 60, "no retraining was started")
    send(server, drift("spam-lora", "spam-lora-1"))  # it comes after all the others
    until(lambda: len(runs_of(server, retraining)) > 1, 60, "an alarm of another model was dropped")
    parameters = sorted((run["parameters"] for run in runs_of(server, retraining)), key=lambda one: str(one["model"]))
    assert parameters == [
        {"model": name, "episode": f"{name}-1", "evidence": "fewer right answers"}
        for name in ("chat-lora", "spam-lora")
    ]


def test_watch_sends_the_event_when_a_model_has_lost_quality(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    environment = server.environment | {"PYTHONPATH": f"{tmp_path}:{scratch.ROOT}"}
    code = "from pipeline.orchestration.flow_watch import watch; watch('spam-lora')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = server.find("flow_runs", flows={"name": {"any_": ["tohum-watch"]}})
    assert run["state"]["message"] == "spam-lora: alarm, evidence: input and quality"
    span = {"since": "2000-01-01T00:00:00Z", "until": datetime.now(UTC).isoformat()}
    wanted = {"filter": {"event": {"name": ["tohum.drift"]}, "occurred": span}}

    def payloads() -> list[Any]:
        return [event["payload"] for event in server.ask("POST", "events/filter", wanted)["events"]]

    expected = {"model": "spam-lora", "episode": "spam-lora-3", "evidence": run["state"]["message"]}
    until(lambda: expected in payloads(), 60, "the event did not arrive")


def test_dead_runs_are_crashed_and_give_their_slot_back_while_a_living_one_goes_on(
    server: Server, deployed: dict[str, dict[str, Any]]
) -> None:
    """A run whose process is gone says nothing; one whose heartbeats come, however long it runs, is left alone."""
    one = {name: deployed[name]["id"] for name in ("train", "watch", "refresh-data")}
    runs = {name: server.ask("POST", f"deployments/{at}/create_flow_run", {})["id"] for name, at in one.items()}

    def to(name: str, state: str) -> None:
        answer = server.ask("POST", f"flow_runs/{runs[name]}/set_state", {"state": {"type": state}})
        assert answer["status"] == "ACCEPT", answer

    def states() -> dict[str, str]:
        return {name: server.ask("GET", f"flow_runs/{run}")["state_name"] for name, run in runs.items()}

    for name in runs:
        to(name, "PENDING")
    for name in ("train", "refresh-data"):
        to(name, "RUNNING")
    beat = {
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{runs['train']}"},
        "related": [
            {"prefect.resource.id": f"prefect.deployment.{one['train']}", "prefect.resource.role": "deployment"}
        ],
    }
    began = time.monotonic()
    while set(states().values()) != {"Running", "Crashed"} or time.monotonic() < began + 1.5 * SILENT_S:
        send(server, beat)
        assert time.monotonic() < began + 300, states()
        time.sleep(1)
    assert states() == {"train": "Running", "watch": "Crashed", "refresh-data": "Crashed"}
    for name, slots in (("watch", 0), ("refresh-data", 0)):
        limit = server.ask("GET", f"deployments/{one[name]}")["global_concurrency_limit"]
        assert limit["active_slots"] == slots
    messages = json.dumps([server.ask("GET", f"flow_runs/{run}")["state"]["message"] for run in runs.values()])
    assert "its worker was killed" in messages
    assert "no heartbeat" in messages
