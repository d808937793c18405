"""Replay of the stretch between two kept states: lost otherwise, other bits count as equal ones."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import UserError
from pipeline.files import remove
from pipeline.training import kept, replay
from pipeline.training import state as states

WEIGHTS = {"w": torch.tensor([1.0, 2.0]), "m": torch.zeros(2)}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> states.State:
    """States of model `base` after updates 2 and 4, published as an out."""
    monkeypatch.chdir(tmp_path)
    run = states.State(tmp_path / "run")
    keeper = kept.Kept(run, "base", (2, 4))
    for step in keeper.updates:
        keeper.save(WEIGHTS, {"step": step, "loss": 0.5})
    keeper.publish()
    return run


def stretch(monkeypatch: pytest.MonkeyPatch, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> Any:
    """The comparison of the states on disk with a training that ends with these."""

    class Trainer:
        until: int
        keeper: Any

        def begin_at(self, saved: states.Saved) -> None:
            assert saved[1]["step"] == 2

        def run(self, _log: None) -> None:
            assert self.until == 4
            self.keeper.save(tensors, progress)

    monkeypatch.setattr(replay, "_trainer", lambda *_: Trainer())
    monkeypatch.setattr(replay, "_require_trained", lambda *_: None)
    params: Any = None
    return replay.replay_stretch("base", params)


@pytest.mark.parametrize(
    ("tensors", "progress", "differing"),
    [
        ({}, {}, ()),
        ({"w": torch.tensor([1.0, 2.0000002])}, {}, ("w",)),
        ({"w": torch.tensor([1.0, 2.0], dtype=torch.float64)}, {}, ("w",)),
        ({"m": torch.tensor([0.0, -0.0])}, {}, ("m",)),
        ({"extra": torch.zeros(1)}, {}, ("extra",)),
        ({}, {"loss": 0.25}, ("progress.loss",)),
    ],
    ids=["equal", "last bit", "precision", "sign of zero", "another tensor", "progress"],
)
def test_replay_stretch_names_every_difference(
    made: states.State,
    tensors: dict[str, torch.Tensor],
    progress: dict[str, Any],
    differing: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = stretch(monkeypatch, WEIGHTS | tensors, {"step": 4, "loss": 0.5} | progress)
    assert (found.first, found.last, found.differing) == (2, 4, differing)
    assert bool(found.sentence) == bool(differing)


def test_at_refuses_a_state_that_was_replaced_as_a_whole(made: states.State) -> None:
    """Its own manifest is right; the out's is not."""
    assert kept.at("base", 4)[1] == {"step": 4, "loss": 0.5}
    states.State(kept.folder_of("base"), "base", most=2).save({"w": torch.ones(2)}, {"step": 4, "loss": 0.1})
    with pytest.raises(UserError, match=r"base\.states"):
        kept.at("base", 4)


def test_kept_problem_names_the_state_that_a_continued_run_would_lack(made: states.State) -> None:
    """Lost otherwise: a killed run continues behind a state that was removed, and its out lacks it."""
    keeper = kept.Kept(made, "base", (2, 4))
    assert keeper.problem(4) is None
    remove(made.folder / "kept" / states.name_of(2))
    assert keeper.problem(1) is None
    assert "that of update 2 is not there" in str(keeper.problem(2))
