"""A whole try of a small file, interrupted and continued; every command of its closing words is run.

A user loses the first hour if this fails: words that are not true, or a Ctrl-C that takes everything.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline.paths import CODE as ROOT
from tests.own_files import labelled, write_csv

pytestmark = pytest.mark.slow
PATIENCE_S = 600


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", *words]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | more


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a file of 60 short rows."""
    folder = tmp_path_factory.mktemp("try") / "project"
    for name in ("pipeline", "stages", "infra/profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "infra/profiles/embedded.yaml", folder / "params.yaml")
    write_csv(folder / "messages.csv", labelled(60))
    return folder


@pytest.fixture(scope="module")
def interrupted(root: Path) -> tuple[int, str]:
    """Exit code and errors of a try that met Ctrl-C after its first stage."""
    process = subprocess.Popen(
        command("try", "messages.csv"), cwd=root, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while not (root / ".tohum/try/data/raw/ledger.json").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors


@pytest.fixture(scope="module")
def finished(root: Path, interrupted: tuple[int, str]) -> str:
    """The output of the same command, started again after the interrupt."""
    assert interrupted
    done = subprocess.run(
        command("try", "messages.csv"), cwd=root, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_interrupt_says_what_is_kept_and_how_to_continue(interrupted: tuple[int, str]) -> None:
    code, errors = interrupted
    assert code == 128 + signal.SIGINT
    assert errors.splitlines()[-1] == (
        "error: interrupted; finished stages and the state of a training are kept in .tohum/try; the same command "
        "continues"
    )
    assert "Traceback" not in errors


def test_try_states_its_settings_with_reasons_and_its_duration(finished: str) -> None:
    assert re.search(r"expected duration: about \d+ (s|min), 17 stages", finished)
    assert re.search(r"split\.test +0\.2 +60 different labelled", finished)
    assert re.search(r"finetune\.\*\.schedule\.steps +\d+ +[\d.]+ epochs of \d+ records", finished)


def test_try_names_the_model_above_each_block_of_figures(finished: str) -> None:
    blocks = re.findall(r"^(\S+):\n(?:  \w+ +-?[\d.]+\n)+", finished, re.M)
    assert blocks == ["base", "spam-full", "spam-lora"]


def test_try_prints_paths_that_exist(finished: str, root: Path) -> None:
    paths = set(re.findall(r"\.tohum/try/[\w./-]+\.(?:html|yaml)", finished))
    assert {".tohum/try/reports/report.html", ".tohum/try/params.yaml"} <= paths
    assert all((root / path).is_file() for path in paths)


def closing_commands(output: str) -> list[list[str]]:
    """The commands of the closing words, without those that need a person's edit before."""
    lines = re.findall(r"^ +(?:\d\. )?tohum (--project .*?|profile .*?)(?:  .*)?$", output, re.M)
    return [shlex.split(line) for line in lines]


def test_closing_words_name_commands_that_run(finished: str, root: Path) -> None:
    commands = closing_commands(finished)
    verbs = [words[2] if words[0] == "--project" else words[0] for words in commands]
    assert verbs == ["chat", "scores", "report", "ui", "profile"]
    for verb, words in zip(verbs, commands, strict=True):
        if verb == "ui":
            continue
        done = subprocess.run(
            command(*words), cwd=root, env=environment(), input="hızlı paket geldi\n", capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        if verb == "chat":
            assert re.fullmatch(r"(iyi|kötü) \([01]\.\d{3}\)\n", done.stdout)
            assert "one of 2 labels: iyi, kötü" in done.stderr
            assert done.stderr.count(" -> ") == 3
        if verb == "report":
            assert (root / done.stdout.strip()).is_file()
    assert "inputs/messages.csv" in (root / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def port() -> int:
    """A free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def test_closing_words_name_a_server_that_shows_the_try(finished: str, root: Path, port: int) -> None:
    words = next(words for words in closing_commands(finished) if words[-1] == "ui")
    server = subprocess.Popen(
        command(*words), cwd=root, env=environment(TOHUM_MLFLOW_PORT=str(port)), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert "try" in experiments(server, root, port)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def experiments(server: subprocess.Popen[bytes], root: Path, port: int) -> str:
    """The server's list of experiments as JSON, once it answers."""
    address, secret = f"http://127.0.0.1:{port}", root / ".tohum/try/.tohum/secrets/mlflow"
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < deadline
        time.sleep(0.5)
        if not secret.is_file():
            continue
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        user, _, password = secret.read_text(encoding="utf-8").strip().partition(":")
        passwords.add_password(None, address, user, password)
        opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
        try:
            with opener.open(f"{address}/api/2.0/mlflow/experiments/search?max_results=10", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            continue
