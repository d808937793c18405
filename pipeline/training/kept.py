"""Training states at fixed updates, an out beside the model: models/<name>.states.

From each of them the training continues to equal bits, so `tohum verify VERSION --replay` can train the stretch between
two of them anew (replay.py) without all that came before. The updates are evenly spaced over the schedule (two states:
after one and two thirds): every stretch then costs the same, and both optimizer and learning rate are past their
warm-up. A training that stops early keeps those that it reached.

While it runs, they are in the folder of its checkpoints, so that a killed run has them when it continues; at the end
they are copied to the out. A state has the trained weights, the optimizer's tensors and, where the best weights are
kept, their copy: of a full AdamW training 4 times the weights, of an adapter 4 times the adapter.
"""

import copy
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline import integrity
from pipeline.errors import UserError
from pipeline.files import replace_folder, write_json
from pipeline.paths import MODELS
from pipeline.training import state as states

SUFFIX = ".states"
INDEX = "states.json"


def folder_of(model: str) -> Path:
    """The out with a model's training states."""
    return MODELS / f"{model}{SUFFIX}"


def updates_of(number: int, updates: int) -> tuple[int, ...]:
    """The updates after which states are kept: `number` of them, evenly spaced over a schedule of `updates`."""
    between = (share * updates // (number + 1) for share in range(1, number + 1))
    return tuple(dict.fromkeys(update for update in between if update > 0))


def at(model: str, update: int) -> states.Saved:
    """A kept state: tensors and progress.

    Raises:
        UserError: it is missing or damaged.
    """
    folder = folder_of(model) / states.name_of(update)
    try:
        integrity.require_intact(folder_of(model))
        return states.read(folder, model)
    except states.DamagedError as error:
        raise UserError(f"{error}; delete {folder_of(model)} and run `dvc checkout {folder_of(model)}`") from None


def kept_updates(model: str) -> list[int]:
    """The updates whose states the out has, ascending; empty where there is no such out."""
    return sorted(map(states.step_of, states.State(folder_of(model)).saved()))


def write_none(model: str) -> None:
    """Writes the out of a model that no update was made for."""
    _write(model, [])


class Kept:
    """The kept states of one run while it trains."""

    def __init__(self, run: states.State, model: str, updates: Iterable[int]) -> None:
        self.model, self.updates = model, tuple(updates)
        self._state = states.State(run.folder / "kept", model, most=len(self.updates))
        self._unwritten: dict[int, states.Saved] = {}

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Keeps the state of `progress["step"]`; in memory where it cannot be written, so that a disk that is full for
        a while does not end the training. It is written at the end.
        """
        try:
            self._state.save(tensors, progress)
        except OSError:
            copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            self._unwritten[int(progress["step"])] = copies, copy.deepcopy(progress)

    def problem(self, step: int) -> str | None:
        """The reason why a run that continues from `step` would lack a state, or None."""
        for update in self.updates:
            if update <= step:
                try:
                    states.read(self._state.folder / states.name_of(update), self.model)
                except states.DamagedError as error:
                    return f"of the states that it keeps, that of update {update} is not there ({error})"
        return None

    def publish(self) -> None:
        """Writes the out.

        Raises:
            UserError: a state was damaged since it was saved.
            OSError: the out could not be written.
        """
        folders = self._state.saved()
        try:
            for folder in folders:
                states.read(folder, self.model)
        except states.DamagedError as error:
            raise UserError(f"{error}; delete {self._state.folder} and run again") from None
        _write(self.model, folders, list(self._unwritten.values()))
        if updates := kept_updates(self.model):
            size = sum(file.stat().st_size for file in folder_of(self.model).rglob("*") if file.is_file())
            after = " and ".join(map(str, updates))
            print(f"{self.model}: states after update {after} in {folder_of(self.model)}, {size / 1e6:.1f} MB")


def _write(model: str, folders: Sequence[Path], unwritten: Sequence[states.Saved] = ()) -> None:
    with replace_folder(folder_of(model)) as new:
        for folder in folders:
            shutil.copytree(folder, new / folder.name)
        made = states.State(new, model, most=len(folders) + len(unwritten))
        for tensors, progress in unwritten:
            made.save(tensors, progress)
        write_json(new / INDEX, {"model": model, "updates": sorted(map(states.step_of, made.saved()))})
        integrity.write_manifest(new)
