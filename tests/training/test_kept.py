"""States kept as an out: lost otherwise, a replay in the middle begins at a state that the training never had."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.files import remove, sha256_of
from pipeline.training import kept
from pipeline.training import state as states
from pipeline.training.run import Trainer
from tests.training.test_run import Log, trainer

OUT = Path("models/test.states")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keeping(log: Log, **changes: float) -> tuple[Trainer, kept.Kept, states.State]:
    """A training of 24 updates that keeps its states after 8 and 16 of them and saves every fifth."""
    plan, state = trainer(log, **changes), states.State(Path("run"))
    keeper = kept.Kept(state, "test", kept.updates_of(2, 24))
    plan.keeper = keeper
    return plan, keeper, state


def published(log: Log) -> str:
    """Trains to the end; returns the hash of the out."""
    plan, keeper, state = keeping(log)
    plan.run(state)
    keeper.publish()
    return sha256_of(OUT)


@pytest.fixture
def whole() -> str:
    """The hash of the out of a training that was never interrupted, which is removed again."""
    found = published(Log())
    remove(Path("run"))
    remove(OUT)
    return found


@pytest.mark.parametrize(
    ("number", "updates", "expected"),
    [
        (2, 660, (220, 440)), (2, 24, (8, 16)), (0, 24, ()), (1, 24, (12,)), (3, 8, (2, 4, 6)),
        (2, 2, (1,)), (2, 1, ()), (2, 0, ()),
    ],
)  # fmt: skip
def test_updates_of_are_evenly_spaced_and_never_the_start(number: int, updates: int, expected: tuple[int]) -> None:
    assert kept.updates_of(number, updates) == expected


def test_publish_writes_the_states_of_the_fixed_updates(whole: str) -> None:
    published(Log())
    assert kept.kept_updates("test") == [8, 16]
    tensors, progress = kept.at("test", 16)
    assert progress["step"] == 16
    assert {name.partition(".")[0] for name in tensors} == {"model", "optimizer", "best"}


@pytest.mark.parametrize("die_at", [4, 8, 9, 13, 17, 23])
def test_publish_gives_equal_bytes_when_the_training_was_killed(whole: str, die_at: int) -> None:
    plan, _, state = keeping(Log(die_at=die_at))
    with pytest.raises(KeyboardInterrupt):
        plan.run(state)
    assert published(Log()) == whole


@pytest.mark.parametrize("damage", ["removed", "flipped"])
def test_a_run_continues_before_a_kept_state_that_is_lost(
    whole: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed at 18; the state of 8 is damaged: those of 10 and 15 would end without it."""
    plan, _, state = keeping(Log(die_at=18))
    with pytest.raises(KeyboardInterrupt):
        plan.run(state)
    place = Path("run/kept/step-00000008")
    if damage == "removed":
        remove(place)
    else:
        data = (place / states.TENSORS).read_bytes()
        (place / states.TENSORS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert published(Log()) == whole
    assert "that of update 8 is not there" in capsys.readouterr().err


def test_a_full_disk_at_a_kept_state_costs_nothing_in_the_end(whole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save = states.State.save

    def full(self: states.State, *arguments: object) -> None:
        if self.folder.name == "kept":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(states.State, "save", full)
    assert published(Log()) == whole


def test_publish_names_a_state_that_was_damaged_since() -> None:
    plan, keeper, state = keeping(Log())
    plan.run(state)
    (Path("run/kept/step-00000008") / states.PROGRESS).unlink()
    with pytest.raises(
        UserError, match=r"run/kept/step-00000008/progress.json: missing; delete run/kept and run again"
    ):
        keeper.publish()
    assert not OUT.exists()


def test_begin_at_continues_to_the_next_kept_state() -> None:
    published(Log())
    plan, keeper, _ = keeping(Log())
    remove(Path("run"))
    plan.keeper = None  # the run's own folder has no state of 8
    plan.begin_at(kept.at("test", 8))
    plan.until, plan.keeper = 16, keeper
    plan.run(None)
    assert keeper._state.saved()[0].name == "step-00000016"
    files = [folder / "step-00000016" / states.TENSORS for folder in (OUT, Path("run/kept"))]
    assert sha256_of(files[0]) == sha256_of(files[1])


def test_begin_at_refuses_a_state_of_another_training() -> None:
    published(Log())
    tensors, progress = kept.at("test", 8)
    plan = trainer(Log())
    with pytest.raises(UserError, match=r"test: the saved state does not fit this training: \S+ is missing"):
        plan.begin_at(({name: value for name, value in tensors.items() if "norm" not in name}, progress))


def test_write_none_writes_an_out_without_states() -> None:
    kept.write_none("test")
    assert kept.kept_updates("test") == []
    assert (OUT / kept.INDEX).is_file()
