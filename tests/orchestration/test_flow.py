"""The flow, on a real Prefect server and a real DVC project of tiny stages.

If these fail a user sees another graph in Prefect than DVC runs, waits for stages that were fresh, misses why
a gate said no, or finds a training process that nobody asked for after a kill.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from pipeline.orchestration import graph, verdicts
from pipeline.orchestration.process import Processes, StageError, StageTimeoutError
from tests import scratch
from tests.prefect_server import FLOW, PREFECT, Server, running, until

pytestmark = pytest.mark.slow
SLOW = "\n  slow:\n    cmd: sh sleep.sh\n    deps: [source.txt]\n    outs: [slow]\n"
SLEEP = "echo $$ > sleeper\nsleep 120\necho done > slow\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server on a free port."""
    with running(tmp_path_factory.mktemp("prefect")) as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scratch.template(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy: Callable[[], Path] = scratch.copies(made, tmp_path, monkeypatch)
    return copy()


def _log(project: Path) -> list[str]:
    return (project / "log").read_text(encoding="utf-8").split("\n")[:-1]


def test_flow_runs_stale_stages_in_order_and_caches_the_others(server: Server, project: Path) -> None:
    """One task per stage in the graph's order; then just what one changed setting touches, then nothing."""
    names = ["one", "fan@left", "fan@right", "last"]
    done = server.run()
    assert done.returncode == 0, done.stdout + done.stderr
    server.assert_tasks(dict.fromkeys(names, "Completed"))
    log = _log(project)
    assert log[:2] == ["start one", "end one"]
    assert log[-2:] == ["start last", "end last"]
    assert "| last | Completed |" in server.artifact("tohum-summary")

    (project / "params.yaml").write_text(scratch.PARAMS.replace("value: 2", "value: 3"), encoding="utf-8")
    server.run()
    server.assert_tasks({"one": "Cached", "fan@left": "Cached", "fan@right": "Completed", "last": "Completed"})
    again = ["start right", "end right", "start last", "end last"]
    assert _log(project)[len(log) :] == again, "a fresh stage ran again"

    (project / "params.yaml").write_text(scratch.PARAMS, encoding="utf-8")
    server.run("last")
    # DVC restores the outs from its run cache; that is no run.
    server.assert_tasks(dict.fromkeys(names, "Cached"))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_flow_runs_independent_stages_side_by_side(server: Server, project: Path) -> None:
    """Two one-core branches on two cores overlap; DVC's locks refuse neither."""
    (project / "say.sh").write_text('echo "start $1" >> log; sleep 6; echo "end $1" >> log\n', encoding="utf-8")
    assert server.run("fan").returncode == 0
    both = [line for line in _log(project) if "one" not in line]
    assert [line.split()[0] for line in both] == ["start", "start", "end", "end"]


def test_flow_shows_a_failed_gate_and_runs_the_other_branch(server: Server, project: Path) -> None:
    """The table names what did not hold, what depends on the gate is not run, and the exit says so."""
    verdict = {
        "gate": "left",
        "passed": False,
        "results": [
            {
                "expectation": "ExpectColumnValuesToBeBetween",
                "column": "emails",
                "severity": "critical",
                "count": 3,
                "says": "at most 0",
                "offenders": ["world:documents:17 <script>alert(1)</script> | a***@x"],
                "params_key": "gates.left.emails",
                "success": False,
                "waived": False,
            }
        ],
    }
    (project / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    gate = "mkdir -p reports/gates/left && cp verdict.json reports/gates/left && exit 1"
    text = scratch.STAGES.replace(
        "  last:\n",
        f"  gate:\n    cmd: {gate}\n    deps: [fan-left]\n    outs: [reports/gates/left]\n  last:\n",
    ).replace("deps: [fan-left, fan-right]", "deps: [fan-left, fan-right, reports/gates/left]")
    (project / "dvc.yaml").write_text(text, encoding="utf-8")
    done = server.run()
    assert done.returncode == 1
    why = (
        "gate: the left gate failed: ExpectColumnValuesToBeBetween on emails: 3, expected at most 0 (change "
        "gates.left.emails in params.yaml); see reports/gates/left/page.html; not run: last"
    )
    assert done.stderr.strip().splitlines()[-1] == f"error: {why}"
    newest = server.find("flow_runs", sort="START_TIME_DESC", limit=1)[0]
    assert newest["state"]["message"] == why
    expected = {"one": "Completed", "fan@left": "Completed", "fan@right": "Completed"}
    server.assert_tasks(expected | {"gate": "Failed", "last": "NotReady"})
    table = server.artifact("gate-left")
    assert "| critical | ExpectColumnValuesToBeBetween on emails: 3, expected at most 0 |" in table
    assert "gates.left.emails" in table
    assert "<script>" not in table
    assert "the left gate failed" in server.artifact("tohum-summary")


def test_flow_takes_retries_and_time_outs_from_the_stage(server: Server, project: Path) -> None:
    """A flaky download is tried again; a hung one is ended, not waited for."""
    flaky = "sh -c 'echo x >> tries; test $(wc -l < tries) -ge 2 && echo ok > flaky'"
    text = f"""
stages:
  flaky:
    cmd: {flaky}
    outs: [flaky]
    meta: {{retries: 1}}
  hung:
    cmd: sh sleep.sh
    outs: [slow]
    meta: {{timeout_s: 6}}
"""
    (project / "dvc.yaml").write_text(text, encoding="utf-8")
    (project / "sleep.sh").write_text(SLEEP, encoding="utf-8")
    assert server.run().returncode == 1
    server.assert_tasks({"flaky": "Completed", "hung": "Failed"})
    assert "hung: not done after 6 s, ended; raise timeout_s" in server.artifact("tohum-summary")
    _assert_sleeper_gone(project)


COMMANDS = """
import os, sys
words = sys.orig_argv[4:]
verb = sys.orig_argv[3] if sys.orig_argv[1:3] == ["-m", "pipeline.cli"] else ""
if verb == "register":
    print("tohum-chat version 3: registered, candidate, model sha256 abc")
    print("tohum-base version 1: already there, candidate, model sha256 def", flush=True)
    os._exit(0)
if verb == "review":
    text = "# tohum-chat\\n\\nto approve exactly these files:\\n  tohum promote tohum-chat 3 --sha256 " + "a" * 64
    print(text if not os.path.exists("decided") else text.replace(" 3 ", " 4 "), flush=True)
    os._exit(0)
if verb in ("promote", "reject"):
    open("decided", "a").write("\\n".join([verb, *words]) + "\\n")
    os._exit(0)
"""
"""`tohum register`, `review`, `promote` and `reject` of a project without a registry: sitecustomize.py."""


def _with_candidate(project: Path, server: Server) -> dict[str, str]:
    """A project whose registry has a candidate; the variables of its processes."""
    (project / "sitecustomize.py").write_text(COMMANDS, encoding="utf-8")
    paths = os.pathsep.join([str(project), server.environment["PYTHONPATH"]])
    return server.environment | {"PYTHONPATH": paths, "TOHUM_DIR": str(project)}


def test_review_is_suspended_until_it_is_answered_and_the_training_flow_waits_for_nobody(
    server: Server, project: Path
) -> None:
    """Lost otherwise: a nightly run that waits a day for a person, or an answer about bytes that nobody was shown."""
    environment = _with_candidate(project, server)
    flow = [*FLOW, "--approve"]
    done = subprocess.run(flow, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "tohum-chat version 3: review it with tohum review tohum-chat" in server.artifact("tohum-summary")

    (project / "prefect.yaml").write_bytes((scratch.ROOT / "prefect.yaml").read_bytes())

    def prefect(*arguments: str) -> None:
        done = subprocess.run([*PREFECT, *arguments], cwd=project, env=environment, check=False, capture_output=True)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    prefect("work-pool", "create", "tohum", "--type", "process")
    prefect("--no-prompt", "deploy", "--name", "review")
    done = subprocess.run(flow, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "waits for a person in Prefect" in server.artifact("tohum-summary")
    (run,) = server.find("flow_runs", flows={"name": {"any_": ["tohum-review"]}})
    at = f"{server.url}/flow_runs/{run['id']}"

    def state(name: str) -> Callable[[], bool]:
        return lambda: bool(httpx.get(at, timeout=60).json()["state_name"] == name)

    def workeruntil(true: Callable[[], bool], otherwise: str) -> None:
        command = [*PREFECT, "worker", "start", "--pool", "tohum", "--type", "process", "--limit", "1"]
        worker = subprocess.Popen(command, cwd=project, env=environment, start_new_session=True)
        try:
            until(true, 180, otherwise)
            until(lambda: not _flows_below(worker.pid), 60, "the process of the flow run did not end")
        finally:
            worker.terminate()
            worker.wait(timeout=60)

    workeruntil(state("Suspended"), "the review was not suspended")
    text = server.artifact("tohum-review-tohum-chat")
    assert f"tohum promote tohum-chat 3 --sha256 {'a' * 64}" in text
    assert not (project / "decided").exists()
    (project / "decided").write_text("")  # another candidate is registered meanwhile: `tohum review` names version 4
    answer = {"run_input": {"decision": "approve", "reason": "read the card: ğ", "despite": "a test"}}
    assert httpx.post(f"{at}/resume", json=answer, timeout=60).json()["status"] == "ACCEPT"
    workeruntil(state("Completed"), "the answered review did not end")
    via = f"an answer in Prefect's page, flow run {run['id']}"
    words = [
        "promote",
        "tohum-chat",
        "3",
        "--sha256",
        "a" * 64,
        "--reason=read the card: ğ",
        "--via",
        via,
        "--despite=a test",
    ]
    assert (project / "decided").read_text(encoding="utf-8").splitlines() == words
    (deployed,) = server.find("deployments")
    for path in (f"deployments/{deployed['id']}", "work_pools/tohum"):  # the server is also other tests'
        httpx.delete(f"{server.url}/{path}", timeout=60).raise_for_status()


def _flows_below(pid: int) -> list[int]:
    """Processes of flow runs that a worker has started."""
    below = psutil.Process(pid).children(recursive=True)
    return [process.pid for process in below if "prefect.flow_engine" in " ".join(process.cmdline())]


def test_flow_shows_the_progress_of_a_training(server: Server, project: Path) -> None:
    """Lines in the task's log and a progress artifact, from what the stage says of itself."""
    code = """
import json, os, pathlib
path = pathlib.Path(".tohum/tracking/x.jsonl")
path.parent.mkdir(parents=True)
start = {"event": "start", "stage": "train@a", "pipeline_uid": os.environ["TOHUM_PIPELINE_UID"]}
lines = [start | {"params": {"train.schedule.steps": "8"}}]
lines += [{"event": "metrics", "step": step, "values": {"batch_loss_nats": 1 / step}} for step in (1, 2)]
path.write_text("".join(json.dumps(line) + chr(10) for line in lines))
pathlib.Path("made").touch()
"""
    (project / "train.py").write_text(code, encoding="utf-8")
    (project / "dvc.yaml").write_text(
        "stages:\n  train:\n    foreach: [a]\n    do:\n      cmd: python train.py\n      outs: [made]\n",
        encoding="utf-8",
    )
    done = server.run()
    assert done.returncode == 0, done.stderr
    (shown,) = server.find("artifacts/latest", artifacts={"key": {"any_": ["progress-train-a"]}})
    assert shown["type"] == "progress"
    assert float(shown["data"]) == 25.0
    assert shown["task_run_id"]
    assert "train@a: step 2 of 8: batch_loss_nats 0.5" in done.stdout + done.stderr


def test_flow_puts_params_back_after_a_run_with_a_profile(server: Server, project: Path) -> None:
    """The stage sees the profile with the settings over it; the file of the user's is the same afterwards."""
    shutil.rmtree(project / "infra", ignore_errors=True)
    shutil.copytree(scratch.ROOT / "infra/profiles", project / "infra/profiles")
    own = (scratch.ROOT / "infra/profiles/embedded.yaml").read_text(encoding="utf-8") + "# my own edit, not committed\n"
    (project / "params.yaml").write_text(own, encoding="utf-8")
    (project / "dvc.yaml").write_text(
        "stages:\n  see:\n    cmd: cp params.yaml seen\n    params: [pretrain]\n    outs: [seen]\n", encoding="utf-8"
    )
    done = server.run("--profile", "gpt2-124m", "--set", "pretrain.schedule.steps=7", "see")
    assert done.returncode == 0, done.stderr
    seen = yaml.safe_load((project / "seen").read_text(encoding="utf-8"))["pretrain"]
    assert (seen["model"]["d_model"], seen["schedule"]["steps"]) == (768, 7)
    assert (project / "params.yaml").read_text(encoding="utf-8") == own
    refused = server.run("--set", "pretrain.schedule.steps=-1")
    assert refused.returncode == 1
    assert "pretrain.schedule.steps" in refused.stderr.strip().splitlines()[-1]
    assert (project / "params.yaml").read_text(encoding="utf-8") == own


def _sleeper(project: Path) -> int:
    return int((project / "sleeper").read_text())


def _assert_sleeper_gone(project: Path, seconds: float = 10) -> None:
    pid = _sleeper(project)

    def gone() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until(gone, seconds, f"process {pid} of the stage still runs")


def _with_slow_stage(project: Path) -> None:
    with (project / "dvc.yaml").open("a", encoding="utf-8") as file:
        file.write(SLOW)
    (project / "sleep.sh").write_text(SLEEP, encoding="utf-8")


def _assert_next_run_works(project: Path) -> None:
    """No lock waits for a person: after the repair DVC runs the stage that was killed."""
    (project / "sleep.sh").write_text("echo done > slow\n", encoding="utf-8")
    command = [sys.executable, "-m", "pipeline.orchestration.dvc_lock"]
    subprocess.run(command, cwd=project, env=scratch.environment(), check=True)
    # The dvc that was told to end may still be letting go of its locks.
    done = scratch.dvc(project, "--wait-for-lock", "repro", "slow")
    assert done.returncode == 0, done.stderr
    assert (project / "slow").read_text() == "done\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_flow_leaves_no_process_and_no_lock_when_killed(server: Server, project: Path, number: signal.Signals) -> None:
    """Lost otherwise: two trainers on one checkpoint after a killed flow and a `dvc repro`."""
    _with_slow_stage(project)
    command = [*FLOW, "slow"]
    process = subprocess.Popen(command, cwd=project, env=server.environment, start_new_session=True)
    until((project / "sleeper").exists, 90, "the stage did not start")
    process.send_signal(number)
    process.wait(timeout=20)
    _assert_sleeper_gone(project)
    _assert_next_run_works(project)


def test_flow_fails_the_task_when_dvc_is_killed(server: Server, project: Path) -> None:
    """Out of memory takes dvc alone: its stage ends too and the flow says that it failed."""
    _with_slow_stage(project)

    command = [*FLOW, "slow"]
    flow = subprocess.Popen(command, cwd=project, env=server.environment, start_new_session=True)
    until((project / "sleeper").exists, 90, "the stage did not start")
    process = psutil.Process(_sleeper(project))
    while "dvc" not in process.cmdline() or "-P" in process.cmdline():
        above = process.parent()
        assert above is not None
        process = above
    process.kill()
    assert flow.wait(timeout=90) == 1
    server.assert_tasks({"slow": "Failed"})
    _assert_sleeper_gone(project)
    _assert_next_run_works(project)


def test_deployment_runs_on_a_worker_and_ends_with_it(server: Server, project: Path) -> None:
    """prefect.yaml as committed, run by a process worker; a killed worker leaves no trainer behind."""
    (project / "prefect.yaml").write_bytes((scratch.ROOT / "prefect.yaml").read_bytes())
    _with_slow_stage(project)
    environment = server.environment | {"TOHUM_DIR": str(project)}

    def prefect(*arguments: str) -> None:
        subprocess.run([*PREFECT, *arguments], cwd=project, env=environment, check=True, capture_output=True)

    prefect("work-pool", "create", "tohum", "--type", "process")
    prefect("--no-prompt", "deploy", "--name", "local")
    (deployed,) = server.find("deployments")
    assert {"profile", "set"} <= set(deployed["parameters"])
    wrong = {"parameters": {"max_parallel": 0}}
    refused = httpx.post(f"{server.url}/deployments/{deployed['id']}/create_flow_run", json=wrong, timeout=60)
    assert refused.status_code == 409, "zero stages side by side would wait for ever"
    assert "max_parallel" in refused.text
    prefect("deployment", "run", "tohum/local", "--param", "registration=false")
    command = [*PREFECT, "worker", "start", "--pool", "tohum", "--type", "process"]
    worker = subprocess.Popen(command, cwd=project, env=environment, start_new_session=True)
    try:
        until((project / "sleeper").exists, 90, "the worker did not run the deployment")
    finally:
        worker.kill()
        worker.wait()
    _assert_sleeper_gone(project)
    _assert_next_run_works(project)


def test_flow_ends_its_temporary_server_when_killed(project: Path, tmp_path: Path) -> None:
    """Without a server of the user's the flow starts one; nobody would ever find and end the one it left."""
    home = tmp_path / "home"
    environment = scratch.environment() | {"PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    process = subprocess.Popen(FLOW, cwd=project, env=environment, start_new_session=True)

    def servers() -> list[int]:
        found = psutil.process_iter(["cmdline", "environ"])
        mine = [p for p in found if (p.info["environ"] or {}).get("PREFECT_HOME") == str(home)]
        return [p.pid for p in mine if "uvicorn" in (p.info["cmdline"] or [])]

    try:
        until(servers, 60, "the flow started no server")
    finally:
        process.kill()
        process.wait()
    until(lambda: not servers(), 10, "the temporary server still runs")


def test_processes_raise_the_childs_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's message is the stage's sentence, not DVC's exit code."""
    monkeypatch.chdir(tmp_path)
    code = "import sys; print('50%\\r100%'); print('error: bad row 7'); print('ERROR: failed'); sys.exit(255)"
    (tmp_path / "bad.py").write_text(code, encoding="utf-8")
    (tmp_path / "hangs.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    told: list[str] = []
    with pytest.raises(StageError, match=r"^bad row 7$"):
        Processes().run(["bad"], timeout_s=None, tell=told.append)
    assert told[0] == "100%"
    with pytest.raises(StageTimeoutError, match="not done after 1 s"):
        Processes().run(["hangs"], timeout_s=1, tell=told.append)


def test_processes_start_no_child_after_stop(tmp_path: Path) -> None:
    """A retry after Ctrl-C would start what was just ended."""
    processes = Processes()
    processes.stop()
    with pytest.raises(StageError, match="stopped"):
        processes.run(["anything"], timeout_s=None, tell=print)


def test_verdict_is_found_by_the_out_of_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's gate lets the graph go on; its no must be seen all the same."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "reports" / "gates" / "base"
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text('{"gate": "model", "passed": false, "results": []}', encoding="utf-8")
    stage = graph.Stage("validate-model@base", "", (), ("reports/gates/base",))
    found = verdicts.of(stage)
    assert found is not None
    assert not found.passed
    assert found.key == "gate-base"
    assert verdicts.of(graph.Stage("sample", "", (), ("data/samples",))) is None


def test_review_to_ask_a_person_names_the_server_that_does_not_answer() -> None:
    environment = scratch.environment() | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = [sys.executable, "-m", "pipeline.cli", "review", "spam-lora", "--ask"]
    done = subprocess.run(
        command, cwd=scratch.ROOT, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 1
    assert "error: Prefect's server does not answer (ConnectError" in done.stderr
    assert "start it (tohum prefect)" in done.stderr
