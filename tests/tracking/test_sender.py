"""The sender: every line of a run reaches MLflow exactly once, whatever is killed or away in between."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.paths import CODE as ROOT
from pipeline.paths import QUEUE
from pipeline.tracking import sender, stage
from pipeline.tracking.delivery_errors import AwayError
from pipeline.tracking.stage import tracked_stage
from pipeline.tracking.tracker import FileTracker
from tests.tracking.test_stage import params


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for the module: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def here(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project whose runs go to an experiment of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOHUM_PIPELINE_UID", uuid.uuid4().hex)
    monkeypatch.setattr(stage, "start_sender", lambda: None)
    return tmp_path


def settings(uri: str) -> Any:
    """The params of this project: an experiment of its own in the store."""
    return params(uri=uri, experiment=Path.cwd().name)


def rows(uri: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        return connection.execute(query, values).fetchall()


def steps(uri: str, uid: str, key: str = "loss_nats") -> list[int]:
    query = (
        "select m.step from metrics m join tags t on t.run_uuid = m.run_uuid "
        "where t.key = 'tohum.run_uid' and t.value = ? and m.key = ? order by m.step"
    )
    return [step for (step,) in rows(uri, query, uid, key)]


def status(uri: str, uid: str, tag: str = "tohum.run_uid") -> str:
    query = "select r.status from runs r join tags t on t.run_uuid = r.run_uuid where t.key = ? and t.value = ?"
    ((found,),) = rows(uri, query + " and r.name not like 'pipeline%'", tag, uid)
    return found


def test_sender_delivers_every_event_of_a_run(here: Path, store: str) -> None:
    model = Path("models/base")
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(uuid.uuid4().bytes)
    Path("curve.csv").write_text("step,loss\n")
    with tracked_stage("pretrain", settings(store)) as run:
        for step in range(1, 1501):
            run.log({"loss_nats": 1 / step, "learning_rate": 1e-3}, step=step)
        run.tag(note="ğüşöçİ")
        run.artifact(Path("curve.csv"))
        run.model(model, {"best_loss_nats": 0.5})
        run.record["tokens_per_second"] = 7.0
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == list(range(1, 1501))
    assert status(store, run.uid) == "FINISHED"

    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(here.name)
    runs = client.search_runs([experiment.experiment_id])
    parent, stage = sorted(runs, key=lambda run: "mlflow.parentRunId" in run.data.tags)
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags["tohum.pipeline_uid"] == os.environ["TOHUM_PIPELINE_UID"]
    assert parent.info.status == "FINISHED"
    assert stage.data.tags["note"] == "ğüşöçİ"
    assert stage.data.params["pretrain.model.n_layers"] == "4"
    assert stage.data.metrics["tokens_per_second"] == 7.0
    assert [file.path for file in client.list_artifacts(stage.info.run_id)] == ["curve.csv"]
    assert stage.info.artifact_uri == f"mlflow-artifacts:/{stage.info.run_id}/artifacts"  # no path of this machine
    kept = Path(store.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert (kept / stage.info.run_id / "artifacts/curve.csv").is_file()
    (made,) = client.search_logged_models([experiment.experiment_id])
    assert made.params == {"path": "models/base", "sha256": files.sha256_of(model)}
    assert (made.source_run_id, str(made.status)) == (stage.info.run_id, "READY")
    assert [(m.key, m.value) for m in made.metrics] == [("best_loss_nats", 0.5)]
    assert not list(kept.rglob("model.safetensors"))  # by reference: nothing copied

    with tracked_stage("evaluate@base", settings(store)) as measured:
        measured.model(model, {"accuracy": 0.75})
    assert sender.drain(timeout_s=60) == 0
    (same,) = client.search_logged_models([experiment.experiment_id])
    assert {m.key for m in same.metrics} == {"best_loss_nats", "accuracy"}


def test_sender_repeats_nothing_when_killed_before_the_cursor_moved(
    here: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracked_stage("pretrain", settings(store)) as run:
        for step in range(40):
            run.log({"loss_nats": float(step)}, step=step)

    def killed(self: sender.Outbox) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sender.Outbox, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            sender.Sender().round()
    assert steps(store, run.uid) == list(range(40))
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == list(range(40))
    assert len(rows(store, "select 1 from tags where key = 'tohum.run_uid' and value = ?", run.uid)) == 1


def test_sender_delivers_a_step_once_when_a_resumed_training_repeats_it(here: Path, store: str) -> None:
    state = here / "state"
    for first, last in ((0, 27), (20, 40)):  # checkpoint at 20, interrupted after 26
        with contextlib.suppress(KeyboardInterrupt), tracked_stage("pretrain", settings(store)) as run:
            run.continue_in(state)
            for step in range(first, last):
                run.log({"loss_nats": float(step)}, step=step)
            if last < 40:
                raise KeyboardInterrupt
        assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == list(range(40))


def test_sender_marks_the_run_of_a_killed_stage_as_killed(here: Path, store: str) -> None:
    code = f"""
import os, signal
from pathlib import Path
from pipeline.tracking import stage
from pipeline.tracking.stage import tracked_stage
from tests.tracking.test_stage import params
stage.start_sender = lambda: None
stage = tracked_stage("pretrain", params(uri={store!r}, experiment=Path.cwd().name))
run = stage.__enter__()
run.log({{"loss_nats": 1.0}}, step=1)
print(run.uid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    uid = done.stdout.strip()
    courier = sender.Sender()
    assert courier.round()
    assert status(store, uid) == "RUNNING"
    courier.round()
    assert status(store, uid) == "KILLED"
    assert not courier.round()  # nothing left to do: the sender may go home


def test_sender_delivers_the_rest_when_the_store_refuses_an_item(
    here: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracked_stage("pretrain", settings(store)) as run:
        run.params({"rank": 8})
        run.params({"rank": 16})  # MLflow's params never change
        run.log({"bad\nname": 1.0, "loss_nats": 2.0}, step=1)
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == [1]
    assert "'rank'" in capsys.readouterr().out


def test_sender_leaves_a_deleted_run_deleted_and_delivers_the_others(here: Path, store: str) -> None:
    from mlflow import MlflowClient

    state = here / "state"
    with contextlib.suppress(KeyboardInterrupt), tracked_stage("pretrain", settings(store)) as run:
        run.continue_in(state)
        raise KeyboardInterrupt
    assert sender.drain(timeout_s=60) == 0
    ((run_id,),) = rows(store, "select run_uuid from tags where key = 'tohum.run_uid' and value = ?", run.uid)
    MlflowClient(store).delete_run(run_id)
    with tracked_stage("pretrain", settings(store)) as run:
        run.continue_in(state)
        run.log({"loss_nats": 1.0}, step=1)
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == []


def test_sender_delivers_all_again_when_the_store_was_emptied(here: Path, store: str) -> None:
    with tracked_stage("pretrain", settings(store)) as run:
        run.log({"loss_nats": 1.0}, step=1)
        sender.Sender().round()
        with sqlite3.connect(store.removeprefix("sqlite:///")) as connection:
            for table in ("latest_metrics", "metrics", "params", "tags", "runs"):
                connection.execute(f"delete from {table}")
        run.log({"loss_nats": 0.5}, step=2)
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == [1, 2]


def test_sender_prefixes_a_metric_of_the_whole_run_when_a_curve_has_its_name(here: Path, store: str) -> None:
    """The summary's last loss under the curve's name would be a false point at step 0."""
    model = Path("models/base")
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(uuid.uuid4().bytes)
    with tracked_stage("pretrain", settings(store)) as run:
        for step in (10, 20):
            run.log({"loss_nats": 1 / step, "tokens_per_second": 5.0}, step=step)
        run.model(model, {"loss_nats": 0.05, "best_loss_nats": 0.05})
        run.record["tokens_per_second"] = 7.0
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == steps(store, run.uid, "tokens_per_second") == [10, 20]
    assert steps(store, run.uid, "summary/loss_nats") == steps(store, run.uid, "summary/tokens_per_second") == [0]
    assert steps(store, run.uid, "best_loss_nats") == [0]


def test_sender_describes_the_pipelines_run(here: Path, store: str) -> None:
    """A reviewer opens one run: settings, scores, pages and links; a description of their own stays."""
    from mlflow import MlflowClient

    page = Path("reports/gates/raw/page.html")
    page.parent.mkdir(parents=True)
    page.write_text("raw: ğ", encoding="utf-8")
    with tracked_stage("validate@raw", settings(store)) as gate:
        gate.page(page, "gates/raw")
    page.write_text("of a later run", encoding="utf-8")  # before anything was delivered
    Path("report.html").write_text("all", encoding="utf-8")
    model = Path("reports/models/spam-lora.html")
    model.parent.mkdir(parents=True)
    model.write_text("of a model", encoding="utf-8")
    with tracked_stage("report", settings(store)) as run:
        run.page(Path("report.html"))
        run.page(model, "models")
        run.headline({"base/bits_per_byte": 1.25, "spam-lora/accuracy": 0.97})
    assert sender.drain(timeout_s=60) == 0
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(here.name)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    runs = client.search_runs([experiment.experiment_id])
    (above,) = (run for run in runs if run.data.tags["tohum.kind"] == "pipeline")
    assert above.data.params["pretrain.model.n_layers"] == "4"
    assert "finetune.spam-lora.optimizer.name" in above.data.params
    assert above.data.metrics == {"base/bits_per_byte": 1.25, "spam-lora/accuracy": 0.97}
    assert {file.path for file in client.list_artifacts(above.info.run_id)} == {"gates", "models", "report.html"}
    for child in (run for run in runs if run.info.run_id != above.info.run_id):
        attached = {file.path for file in client.list_artifacts(child.info.run_id)}
        of_gate = child.data.tags["tohum.run_uid"] == gate.uid
        assert attached == ({"page.html"} if of_gate else {"report.html", "spam-lora.html"})
    beside = Path(store.removeprefix("sqlite:///")).parent
    copied = beside / "mlartifacts" / above.info.run_id / "artifacts/gates/raw/page.html"
    assert copied.read_text(encoding="utf-8") == "raw: ğ"
    note = above.data.tags["mlflow.note.content"]
    assert "| spam-lora | accuracy | 0.9700 |" in note
    at = f"#/experiments/{experiment.experiment_id}/runs/"
    assert f"[report.html]({at}{above.info.run_id}/artifacts/report.html)" in note
    assert f"[model spam-lora]({at}{above.info.run_id}/artifacts/models/spam-lora.html)" in note
    assert f"[gate raw]({at}{above.info.run_id}/artifacts/gates/raw/page.html)" in note
    assert "[validate@raw](" in note

    client.set_tag(above.info.run_id, "mlflow.note.content", "The one we ship.")
    with tracked_stage("evaluate@base", settings(store)):
        pass
    assert sender.drain(timeout_s=60) == 0
    assert client.get_run(above.info.run_id).data.tags["mlflow.note.content"] == "The one we ship."


def test_sender_keeps_the_experiments_kind_when_a_person_chose_it(here: Path, store: str) -> None:
    from mlflow import MlflowClient

    made = MlflowClient(store).create_experiment(here.name, tags={"mlflow.experimentKind": "finetuning"})
    with tracked_stage("pretrain", settings(store)):
        pass
    assert sender.drain(timeout_s=60) == 0
    assert MlflowClient(store).get_experiment(made).tags["mlflow.experimentKind"] == "finetuning"


def test_sender_keeps_both_pipelines_when_a_stage_trains_again(
    here: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = []
    for pipeline in ("a" * 32, "b" * 32):
        monkeypatch.setenv("TOHUM_PIPELINE_UID", pipeline + here.name[:8])
        with tracked_stage("pretrain", settings(store)) as run:
            run.continue_in(here / "state")
            for step in (1, 2):
                run.log({"loss_nats": 1 / step}, step=step)
        uids.append(run.uid)
        assert sender.drain(timeout_s=60) == 0
    assert [steps(store, uid) for uid in uids] == [[1, 2], [1, 2]]
    query = (
        "select r.name, r.status, (select count(*) from tags t where t.key = 'mlflow.parentRunId' and "
        "t.value = r.run_uuid) from runs r join experiments e using (experiment_id) where e.name = ?"
    )
    found = [row for row in rows(store, query, here.name) if row[0].startswith("pipeline")]
    assert [row[1:] for row in found] == [("FINISHED", 1)] * 2


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database " * 500)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _of_another_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("update alembic_version set version_num = 'deadbeef0000'")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        for table in ("runs", "experiments"):
            connection.execute(f"create table {table} (a integer)")


DAMAGES = (_garbage, _cut, _of_another_version, _folder, _of_another_program)
DRAIN = """
import os, sys
from pipeline.tracking import sender
for folder in sys.argv[1:]:
    os.chdir(folder)
    print(f"project {folder}", file=sys.stderr)
    print(sender.drain())
"""
"""Drains the projects in turn, in one process: importing MLflow takes seconds."""


def drained(folders: list[Path]) -> dict[Path, tuple[str, str]]:
    """Folder -> the exit code of its drain and all that it said."""
    command = [sys.executable, "-c", DRAIN, *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    codes = [line for line in done.stdout.splitlines() if line in ("0", "1")]
    said = re.split(r"^project .*\n", done.stderr, flags=re.MULTILINE)[1:]
    return dict(zip(folders, zip(codes, said, strict=True), strict=True))


def test_sender_explains_a_damaged_store_and_keeps_all_lines(
    here: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines delivered before and lines that wait are both in the store that takes a damaged one's place."""
    template = Path(store.removeprefix("sqlite:///"))

    def new_store() -> None:  # making its tables takes seconds
        with sqlite3.connect(template) as source, sqlite3.connect("mlflow.db") as copy:
            source.backup(copy)

    projects = {here / damage.__name__: damage for damage in DAMAGES}
    before, after, elsewhere = {}, {}, {}
    for folder in projects:
        folder.mkdir()
        monkeypatch.chdir(folder)
        new_store()
        with tracked_stage("pretrain", settings(f"sqlite:///{folder}/mlflow.db")) as run:
            run.log({"loss_nats": 1.0}, step=1)
        before[folder] = run.uid
    assert {code for code, _ in drained(list(projects)).values()} == {"0"}
    for folder, damage in projects.items():
        monkeypatch.chdir(folder)
        with tracked_stage("evaluate@base", settings(f"sqlite:///{folder}/mlflow.db")) as run:
            run.log({"accuracy": 0.5})
        after[folder] = run.uid
        with tracked_stage("report", settings(store)) as run:
            run.log({"figure": 1.0})
        elsewhere[folder] = run.uid
        damage(Path("mlflow.db"))
    for folder, (code, said) in drained(list(projects)).items():
        assert code == "1", folder
        (line,) = [line for line in said.splitlines() if line.startswith("sender:")]
        assert "mlflow.db: not a database that this MLflow can use" in line, folder
        assert "move it away" in line
        assert "Traceback" not in said
        assert steps(store, elsewhere[folder], "figure") == [0]  # the other stores are served all the same

    for folder in projects:
        monkeypatch.chdir(folder)
        Path("mlflow.db").rename("mlflow.db.damaged")
        new_store()
    assert {code for code, _ in drained(list(projects)).values()} == {"0"}
    for folder in projects:
        uri = f"sqlite:///{folder}/mlflow.db"
        assert steps(uri, before[folder]) == [1], folder
        assert steps(uri, after[folder], "accuracy") == [0], folder


@pytest.mark.parametrize("answer", [b"<html>welcome</html>", b"[]", b'{"experiment": 7}', b"{}", b"\xff\xfe"])
def test_sender_treats_a_server_with_invalid_answers_as_away(
    here: Path, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program on the port, or a proxy's page: one sentence, and the lines wait."""

    class Nonsense(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Nonsense) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tracked_stage("pretrain", settings(f"http://127.0.0.1:{server.server_port}")) as run:
            run.log({"loss_nats": 1.0}, step=1)
        assert sender.drain(timeout_s=0.5) == 1
        server.shutdown()
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("sender: 1 runs (")
    assert "MLflow:" in said
    assert sender.waiting()[0] == 1


def test_sender_delivers_all_again_when_the_store_was_removed(here: Path, store: str) -> None:
    """Also those that were delivered long ago, and though nothing new waits."""
    with sqlite3.connect(store.removeprefix("sqlite:///")) as source, sqlite3.connect("mlflow.db") as copy:
        source.backup(copy)
    uri = f"sqlite:///{here}/mlflow.db"
    with tracked_stage("pretrain", settings(uri)) as run:
        run.log({"loss_nats": 1.0}, step=1)
    assert sender.drain(timeout_s=60) == 0
    assert sender.waiting() == (0, 0)
    Path("mlflow.db").unlink()
    runs, size = sender.waiting()
    assert (runs, size) == (1, (QUEUE / f"{run.uid}.jsonl").stat().st_size)


@pytest.mark.parametrize(
    "cursor",
    ["", "[]", "{}", "null", '{"offset": -5}', '{"offset": 1e9}', '{"offset": 10000000}', '{"offset": "7"}',
     '{"offset": 3, "last_step": []}', '{"offset": 40, "run_id": 7}', '{"last_step": {"loss_nats": "x"}}'],
)  # fmt: skip
def test_sender_delivers_all_once_when_the_cursor_is_damaged(here: Path, store: str, cursor: str) -> None:
    with tracked_stage("pretrain", settings(store)) as run:
        for step in (1, 2):
            run.log({"loss_nats": 1.0}, step=step)
    assert sender.drain(timeout_s=60) == 0
    (QUEUE / f"{run.uid}.cursor").write_text(cursor)
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == [1, 2]
    assert sender.waiting() == (0, 0)


def test_sender_skips_a_file_without_start(here: Path, store: str) -> None:
    QUEUE.mkdir(parents=True)
    (QUEUE / f"{uuid.uuid4().hex}.jsonl").write_bytes(b'{"event": "start", "uid\n\xff\xfe\n')
    (QUEUE / "folder.jsonl").mkdir()
    with tracked_stage("pretrain", settings(store)) as run:
        run.log({"loss_nats": 1.0}, step=1)
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == [1]


def test_sender_leaves_out_damaged_lines(here: Path, store: str) -> None:
    with tracked_stage("pretrain", settings(store)) as run:
        run.log({"loss_nats": 1.0}, step=1)
        assert isinstance(run, FileTracker)
        assert run._file is not None
        run._file.write(b'{"event": "metr\n[1, 2]\nnull\n{}\n{"event": "metrics"}\n{"event": "end", "status": 7}\n')
        run._file.write(b'{"event": "metrics", "time_ms": 1, "step": "x", "values": {"loss_nats": 1}}\n')
        run._file.write(b'{"event": "start", "uid": "\' or 1=1", "time_ms": 1}\n{"event": "model", "values": 3}\n')
        run.log({"loss_nats": 1.0}, step=2)
    assert sender.drain(timeout_s=60) == 0
    assert steps(store, run.uid) == [1, 2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(store: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    """A real MLflow server, as `tohum ui` starts it; returns when it answers."""
    places = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "mlartifacts")]
    command = [sys.executable, "-m", "mlflow", "server", *places, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=folder)
    for _ in range(900):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
            return server
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            time.sleep(0.2)
    kill(server)
    raise AssertionError("the server did not answer in three minutes")


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Any, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.1)


@pytest.mark.slow
def test_sender_delivers_each_step_once_when_server_and_sender_are_killed(here: Path, store: str) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    server = serve(store, port, here)
    courier = None
    try:
        with tracked_stage("pretrain", settings(uri)) as run:
            for step in range(100):
                run.log({"loss_nats": float(step)}, step=step)
            courier = subprocess.Popen(
                [sys.executable, "-m", "pipeline.tracking.sender", "--idle", "5"],
                env=environment,
                start_new_session=True,
            )
            until(lambda: len(steps(store, run.uid)) == 100)  # live: the run has not ended
            assert status(store, run.uid) == "RUNNING"
            kill(server)
            began = time.perf_counter()
            for step in range(100, 200):
                run.log({"loss_nats": float(step)}, step=step)
            # A client that waits for the server blocks for minutes here; a line in a file does not wait at all.
            assert time.perf_counter() - began < 60
            time.sleep(2)
            kill(courier)
        with pytest.raises(AwayError):
            sender.Sender().round()
        assert sender.drain(timeout_s=1) == 1
        server = serve(store, port, here)
        assert sender.drain(timeout_s=60) == 0
    finally:
        for process in (server, courier):
            if process is not None and process.poll() is None:
                kill(process)
    assert steps(store, run.uid) == list(range(200))
    assert status(store, run.uid) == "FINISHED"


def test_sender_ends_when_another_one_runs(here: Path, store: str, capsys: pytest.CaptureFixture[str]) -> None:
    with tracked_stage("pretrain", settings(store)):
        pass
    with sender._lock(QUEUE) as held:
        assert held is not None
        assert sender.drain(timeout_s=1) == 1
    assert "another sender" in capsys.readouterr().err
    assert sender.drain(timeout_s=60) == 0


def test_follow_ends_when_nothing_arrives(here: Path, store: str) -> None:
    with tracked_stage("pretrain", settings(store)) as run:
        run.log({"loss_nats": 1.0}, step=1)
    sender.follow(idle_seconds=1)
    assert steps(store, run.uid) == [1]
    assert json.loads((QUEUE / f"{run.uid}.cursor").read_text())["ended"] is True
