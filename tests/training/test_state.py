"""Saved states: three of a run, the newest good one is used; a wrong one costs a warning, never a wrong weight."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline import files
from pipeline.errors import UserError
from pipeline.training import state as states
from pipeline.training import state_locks
from tests.training.test_run import Log, finished, trainer

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`: the states of steps 5, 10 and 15 of a killed training; `other`: those of one with another rate."""
    folder = tmp_path_factory.mktemp("states")
    for name, rate in (("run", 1e-2), ("other", 2e-2)):
        with pytest.raises(KeyboardInterrupt):
            finished(folder / name, trainer(Log(die_at=19), learning_rate=rate))
    whole = trainer(Log())
    weights, _ = finished(folder / "whole", whole)
    torch.save(weights, folder / "whole.pt")
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy whose states may be damaged."""
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def step(number: int) -> str:
    return f"step-{number:08d}"


def resealed(folder: Path, **progress: object) -> None:
    """Changes the progress and makes the manifest agree."""
    path = folder / states.PROGRESS
    value = json.loads(path.read_text())
    value["progress"] |= progress
    files.write_json(path, value)
    manifest = json.loads((folder / states.MANIFEST).read_text())
    manifest["files"][states.PROGRESS] = {"bytes": path.stat().st_size, "sha256": files.sha256_of(path)}
    files.write_json(folder / states.MANIFEST, manifest)


def flipped(folder: Path) -> None:
    path = folder / states.TENSORS
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def with_folder(folder: Path) -> None:
    (folder / states.TENSORS).unlink()
    (folder / states.TENSORS).mkdir()


def linked(folder: Path) -> None:
    (folder / states.PROGRESS).rename(folder.parent / "kept.json")
    (folder / states.PROGRESS).symlink_to(folder.parent / "kept.json")


def as_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch()


DAMAGES: dict[str, Damage] = {
    "flipped bit": flipped,
    "cut off": lambda folder: os.truncate(folder / states.TENSORS, 100),
    "manifest []": lambda folder: (folder / states.MANIFEST).write_text("[]"),
    "manifest {}": lambda folder: (folder / states.MANIFEST).write_text("{}"),
    "manifest empty": lambda folder: (folder / states.MANIFEST).write_text(""),
    "manifest not UTF-8": lambda folder: (folder / states.MANIFEST).write_bytes(b"\xff\xfe\x00"),
    "manifest deep": lambda folder: (folder / states.MANIFEST).write_text("[" * 60_000),
    "folder for a file": with_folder,
    "link for a file": linked,
    "file for a folder": as_file,
    "missing file": lambda folder: (folder / states.PROGRESS).unlink(),
    "one file more": lambda folder: (folder / "more").touch(),
    "of another step": lambda folder: shutil.copy(folder.parent / step(10) / states.MANIFEST, folder),
    "no progress": lambda folder: resealed(folder, curve="none"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_state_is_skipped_for_the_one_before(
    run: Path, made: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(run / step(15))
    again = trainer(Log())
    weights, _ = finished(run, again)
    assert again.log.record["resumed_at_step"] == 10
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {run / step(15)}")
    assert "training continues from step 10" in said
    assert said.count("\n") == 1
    whole = torch.load(made / "whole.pt")
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_another_runs_state_under_this_key_is_not_used(
    run: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen: its weights were taken, and the model learned from them."""
    for number in (5, 10, 15):
        shutil.rmtree(run / step(number))
        shutil.copytree(made / "other" / step(number), run / step(number))
    manifest = json.loads((run / step(15) / states.MANIFEST).read_text())
    files.write_json(
        run / step(15) / states.MANIFEST, manifest | {"key": "run"}
    )  # not even with a manifest of this run
    again = trainer(Log())
    finished(run, again)
    assert again.log.record["resumed_at_step"] == 0
    said = capsys.readouterr().err
    assert said.count("belongs to another run, 'other'") == 3
    assert said.count("training starts over") == 3


@pytest.mark.parametrize("name", [states.MANIFEST, states.PROGRESS, states.TENSORS])
def test_each_file_of_a_state_says_whose_it_is(
    made: Path, run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One file of another run in a state whose hashes fit: equal shapes would be trained on without a word."""
    folder = run / step(15)
    manifest = json.loads((folder / states.MANIFEST).read_text())
    if name == states.MANIFEST:
        manifest["key"] = "other"
    else:
        shutil.copyfile(made / "other" / step(15) / name, folder / name)
        sizes = {"bytes": (folder / name).stat().st_size, "sha256": files.sha256_of(folder / name)}
        manifest["files"][name] = sizes
    files.write_json(folder / states.MANIFEST, manifest)
    loaded = states.State(run).load()
    assert loaded is not None
    assert loaded[1]["step"] == 10
    assert f"{step(15)}/{name}: belongs to another run, 'other'" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_not_copied(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A state of another shape under the same key must not be half copied into the model."""
    tensors, progress = states.read(run / step(15), "run")
    name = next(name for name in tensors if name.startswith("model."))
    tensors[name] = torch.zeros(3)
    states.State(run).save(tensors, progress)
    again = trainer(Log())
    finished(run, again)
    assert again.log.record["resumed_at_step"] == 10
    assert f"{name} is torch.float32 [3], this run has torch.float32 [" in capsys.readouterr().err


def test_three_states_are_kept_and_what_a_kill_left_is_removed(run: Path) -> None:
    assert [path.name for path in states.State(run).saved()] == [step(15), step(10), step(5)]
    (run / f".{step(20)}.new.tmp").mkdir()
    states.State(run).save({"a": torch.zeros(2)}, {"step": 20})
    assert sorted(path.name for path in run.iterdir()) == [step(10), step(15), step(20)]


def test_a_full_disk_leaves_the_states_of_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise states.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(states, "save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        states.State(run).save({"a": torch.zeros(2)}, {"step": 20})
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.name for path in run.iterdir()) == [step(5), step(10), step(15)]


def test_no_descriptors_are_not_damage(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that could not be opened for want of descriptors must still be there for the next run."""

    def none_left(path: Path) -> str:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(states, "sha256_of", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        states.State(run).load()
    assert len(states.State(run).saved()) == 3


@pytest.mark.parametrize("wrong", ["lock is a folder", "key is a file", "key is a link to nowhere"])
def test_something_else_where_a_lock_or_a_run_belongs_is_cleared(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state_locks.STATE.mkdir(parents=True)
    key = state_locks.STATE / "k"
    if wrong == "lock is a folder":
        (key / "lock").mkdir(parents=True)
    elif wrong == "key is a file":
        key.touch()
    else:
        key.symlink_to("nowhere")
    with state_locks.locked("k") as state:
        assert state.load() is None
        assert (key / "lock").is_file()


def test_two_trainings_of_one_model_are_never_at_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other params they have other keys, and would still write the same folder."""
    monkeypatch.chdir(tmp_path)
    with (
        state_locks.locked("a", "base"),
        pytest.raises(UserError, match=rf"models/base: another process \({os.getpid()}\)"),
        state_locks.locked("b", "base"),
    ):
        pass
    with state_locks.locked("b", "base"), state_locks.locked("a", "spam"):
        pass


def test_states_that_nobody_continues_go_and_say_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new", "held"):
        shutil.copytree(made / "run", state_locks.STATE / name)
    (state_locks.STATE / "finished").mkdir()
    long_ago = time.time() - 86400 * (state_locks.ABANDONED_DAYS + 1)
    for name in ("old", "held", "finished"):
        for path in [*(state_locks.STATE / name).iterdir(), state_locks.STATE / name]:
            os.utime(path, (long_ago, long_ago))
    with state_locks._alone(state_locks.STATE / "held" / "lock", "held"), state_locks.locked("mine"):
        assert sorted(path.name for path in state_locks.STATE.iterdir()) == ["held", "mine", "new"]
    assert f"{state_locks.STATE / 'old'}: states of a run not continued for 15 days removed" in capsys.readouterr().err
    monkeypatch.setattr(state_locks, "OTHERS_KEPT", 1)
    os.utime(state_locks.STATE / "new" / step(15), (time.time() + 9, time.time() + 9))
    with state_locks.locked("mine"):
        assert sorted(path.name for path in state_locks.STATE.iterdir()) == ["mine", "new"]


def test_machine_differs_by_threads_and_cpu_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a replay on other hardware blames code, data or settings for other rounding."""
    here, threads = states.machine(), torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    assert states.machine() != here
    monkeypatch.undo()
    monkeypatch.setattr(states, "_cpu_model", lambda: "Abacus 3000")
    assert "Abacus 3000" in states.machine()
    assert states.machine() != here


def test_cpu_model_is_read_from_the_facts_of_linux(tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Abacus 3000\n", encoding="utf-8")
    assert states._cpu_model(facts) == "Abacus 3000"
    assert states._cpu_model(tmp_path / "none")
