"""The guard: without it a killed `dvc repro` leaves a trainer that writes into the next run's checkpoints.

Each test starts a stand-in for dvc that starts the guard, that starts a stage with a child of its own, and
kills one of them. A heartbeat file tells whether anything of the stage still lives.
"""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.closure import closure
from pipeline.orchestration import guard
from pipeline.orchestration.process import GUARD_STOPS_S
from pipeline.paths import CODE as ROOT

GUARD = [sys.executable, str(ROOT / "pipeline" / "orchestration" / "guard.py")]
WITHIN_S = 5.0


# A stage that writes its number, has a child that does the same, and beats until it is ended.
STAGE = """
import os, signal, subprocess, sys, time
if "stubborn" in sys.argv:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
if "child" not in sys.argv:
    subprocess.Popen([sys.executable, "-m", "beating", *sys.argv[1:], "child"])
name = "child" if "child" in sys.argv else "stage"
with open(name + ".tmp", "w") as file:
    file.write(str(os.getpid()))
os.rename(name + ".tmp", name)
try:
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    open("tidied", "w").close()
    sys.exit(130)
"""
DVC = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "beating.py").write_text(STAGE, encoding="utf-8")
    yield tmp_path
    for name in ("stage", "child"):
        if (tmp_path / name).exists():
            _kill(int((tmp_path / name).read_text()))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _lives(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody reaps does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


def _start(folder: Path, *arguments: str, shell: bool = False) -> subprocess.Popen[bytes]:
    """A stand-in for dvc with a guarded stage below it; returns when stage and grandchild are running."""
    guarded = [*GUARD, "beating", *arguments]
    if shell:  # one that stays between dvc and the guard
        guarded = ["/bin/sh", "-c", " ".join(guarded) + "; code=$?; exit $code"]
    process = subprocess.Popen([sys.executable, "-c", DVC, *guarded], cwd=folder, start_new_session=True)
    deadline = time.monotonic() + 20
    while not ((folder / "stage").exists() and (folder / "child").exists()):
        assert time.monotonic() < deadline, "the stage did not start"
        assert process.poll() is None, "the stand-in for dvc ended early"
        time.sleep(0.02)
    return process


def _pids(folder: Path) -> tuple[int, int]:
    return int((folder / "stage").read_text()), int((folder / "child").read_text())


def _guard_of(stage: int) -> int:
    return int(
        subprocess.run(["ps", "-o", "ppid=", "-p", str(stage)], capture_output=True, text=True, check=True).stdout
    )


def _assert_all_gone(folder: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while left := [pid for pid in _pids(folder) if _lives(pid)]:
        assert time.monotonic() < deadline, f"still running after {WITHIN_S} s: {left}"
        time.sleep(0.05)


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_guard_passes_the_exit_code_on(tmp_path: Path, code: int) -> None:
    """A user loses the verdict of a gate if a failing stage looks like one that passed."""
    (tmp_path / "ends.py").write_text("import sys; sys.exit(int(sys.argv[1]))", encoding="utf-8")
    assert subprocess.run([*GUARD, "ends", str(code)], cwd=tmp_path, check=False).returncode == code


def test_guard_exits_with_128_plus_the_signal_of_the_stage(tmp_path: Path) -> None:
    """Out of memory (KILL) must be told from an error of the stage: 128 + 9."""
    (tmp_path / "dies.py").write_text("import os; os.kill(os.getpid(), 9)", encoding="utf-8")
    assert subprocess.run([*GUARD, "dies"], cwd=tmp_path, check=False).returncode == 128 + signal.SIGKILL


def test_guard_passes_output_and_arguments_unchanged(tmp_path: Path) -> None:
    """Stage names, paths and messages may hold spaces and Turkish letters."""
    (tmp_path / "says.py").write_text("import sys; print(sys.argv[1:])", encoding="utf-8")
    done = subprocess.run(
        [*GUARD, "says", "İki söz", "--x=1"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "['İki söz', '--x=1']\n"


def test_guard_exits_with_2_without_a_stage(tmp_path: Path) -> None:
    """A mistyped cmd in dvc.yaml must not pass as a stage that did its work."""
    done = subprocess.run(GUARD, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert "pipeline.orchestration.guard stages.<name>" in done.stderr


@pytest.mark.parametrize("shell", [False, True], ids=["direct", "behind a shell"])
def test_guard_ends_the_stage_when_dvc_is_killed(folder: Path, shell: bool) -> None:
    """`kill -9` of dvc: stage and child end, whether or not a shell stands in between."""
    if shell and not Path("/proc/self/stat").exists():
        pytest.skip("the grandparent is read from /proc")
    process = _start(folder, shell=shell)
    process.kill()
    process.wait()
    _assert_all_gone(folder)


def test_guard_ends_a_stage_that_ignores_signals(folder: Path) -> None:
    """A stage deep in a C call, or one that ignores signals, is killed all the same."""
    process = _start(folder, "stubborn")
    process.kill()
    process.wait()
    _assert_all_gone(folder)


def test_sentinel_ends_the_stage_when_the_guard_is_killed(folder: Path) -> None:
    """The out-of-memory killer may pick the guard; its sentinel then ends the stage."""
    process = _start(folder)
    os.kill(_guard_of(_pids(folder)[0]), signal.SIGKILL)
    _assert_all_gone(folder)
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_guard_ends_the_whole_group_on_a_signal(folder: Path, number: signal.Signals) -> None:
    """Ctrl-C, `kill` and a closed terminal: all ends, temporary files are tidied, the code names it."""
    process = _start(folder)
    os.kill(_guard_of(_pids(folder)[0]), number)
    assert process.wait(timeout=WITHIN_S) == 128 + number
    _assert_all_gone(folder)
    assert (folder / "tidied").exists()


def test_guard_ends_processes_left_by_a_finished_stage(tmp_path: Path) -> None:
    """Data loaders of a crashed trainer must not hold memory and files until the next restart."""
    code = "import subprocess; open('child', 'w').write(str(subprocess.Popen(['sleep', '60']).pid))"
    (tmp_path / "leaves.py").write_text(code, encoding="utf-8")
    subprocess.run([*GUARD, "leaves"], cwd=tmp_path, check=True)
    child = int((tmp_path / "child").read_text())
    time.sleep(0.1)
    assert not _lives(child)


def test_guard_loads_only_the_standard_library() -> None:
    """Two dozen stages pay for its start in every run: no third-party module, and only its own package."""
    loaded = "{m.partition('.')[0] for m in sys.modules} - set(sys.stdlib_module_names)"
    code = f"import sys, pipeline.orchestration.guard; print(sorted({loaded}))"
    found = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(found.stdout)) <= {"pipeline", "__main__"}


@pytest.mark.parametrize("own", [{}, {"ARROW_DEFAULT_MEMORY_POOL": "mimalloc", "GOMP_SPINCOUNT": "1"}])
def test_guard_sets_environment_variables_that_the_caller_has_not(tmp_path: Path, own: dict[str, str]) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    (tmp_path / "tells.py").write_text(code, encoding="utf-8")
    found = json.loads(_said("tells", tmp_path, own))
    assert {name: found[name] for name in guard.ENVIRONMENT} == guard.ENVIRONMENT | own


def _said(module: str, folder: Path, own: dict[str, str]) -> str:
    """The output of a stage whose caller sets these variables and no other of the guard's."""
    outside = {name: value for name, value in os.environ.items() if name not in guard.ENVIRONMENT}
    done = subprocess.run([*GUARD, module], cwd=folder, env=outside | own, capture_output=True, text=True, check=True)
    return done.stdout


SAVES = """
import pathlib, signal, time
def late(number, frame):
    time.sleep(4)  # longer than another stage is given
    pathlib.Path("saved").touch()
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, late)
pathlib.Path("ready").touch()
while True:
    time.sleep(0.05)
"""


def test_guard_gives_a_training_time_to_save(tmp_path: Path) -> None:
    """Else it is killed after 3.5 s, in the middle of its save."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/pretrain.py").write_text(SAVES, encoding="utf-8")
    process = subprocess.Popen([*GUARD, "stages.pretrain"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert (tmp_path / "saved").exists()


def test_guard_knows_every_stage_that_trains() -> None:
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    wholes = [stage.get("do", stage) for stage in graph.values()]
    modules = {stage["cmd"].split()[3] for stage in wholes}
    training = {module for module in modules if "pipeline.training.run" in closure(module)}
    assert training
    assert training | {"pipeline.studies.trials"} == set(guard.SAVING)


def test_waiting_processes_wait_longer_than_a_guard_takes() -> None:
    """Else the outer one is killed while the training inside still saves."""
    inside, dvc, flow = max(guard.SAVING.values()), guard.WAITING["dvc"], guard.WAITING["pipeline.cli flow"]
    assert inside + guard.LAST_S < dvc
    assert dvc + guard.LAST_S < GUARD_STOPS_S < flow


# One that runs a guarded stage, damages DVC's files as a kill in the middle of writing does, and is killed.
KILLED_DVC = """
import os, pathlib, signal, subprocess, sys
done = subprocess.run(sys.argv[1:])
assert done.returncode == 0
pathlib.Path(".dvc/tmp/rwlock").write_bytes(b"")
pathlib.Path("dvc.lock").write_text("schema: '2.0'\\nstages:\\n  one:\\n    cmd: x\\n  two:\\n    cm")
pathlib.Path("damaged").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the end of another's process is told on Linux alone")
def test_guard_repairs_dvcs_files_after_dvc_was_killed(tmp_path: Path) -> None:
    """Else every later plain `dvc repro` stops until a person deletes the file."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "dvc").write_text(KILLED_DVC, encoding="utf-8")
    (tmp_path / "short.py").write_text("", encoding="utf-8")
    guarded = " ".join([*GUARD, "short"])
    command = [sys.executable, "dvc", "/bin/sh", "-c", f"{guarded} && {guarded}; exit $?"]  # two stages, one watcher
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while (tmp_path / ".dvc/tmp/rwlock").exists() or not (tmp_path / "dvc.lock").read_text().endswith("cmd: x\n"):
        assert time.monotonic() < deadline, "not mended"
        time.sleep(0.05)
    log = tmp_path / ".tohum/dvc_lock.log"
    while log.read_text().count("\n") < 2:
        assert time.monotonic() < deadline, "nothing said"
        time.sleep(0.05)
    assert log.read_text().count("cut off by a kill") == 1
