"""Replay of stretches of a training: equal bits after the same updates, from the recorded start, data and code.

Two stretches are trained anew and compared with the recorded states:

- from the start to the first validation, of which a training records the SHA-256 of weights and optimizer state
  (reports/training/<model>.hashes.json);
- between the states that it keeps as an out (models/<model>.states, kept.py), from the first of them to the next, so
  that a change which acts in the middle is seen without training all that came before. Here every tensor is compared,
  and the first that differs is named.

Updates outside the stretches are not trained again: data that is read there, and a change that acts there, go unseen.
Bits are equal on the same CPU model with the same build of torch and number of threads; elsewhere rounding may differ.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline import files, integrity
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.paths import MODELS, RUNS, TOKENIZER, TRAINING
from pipeline.training import kept, state
from pipeline.training.build import build
from pipeline.training.run import Trainer
from pipeline.training.start import finetune_start, start


@dataclass(frozen=True)
class Replay:
    """The state of a training after some updates, recorded and trained anew."""

    step: int
    recorded: str
    found: str
    machine: str
    """This machine: torch's build, CPU model and threads."""
    recorded_machine: str | None
    """That of the training; None: not recorded."""

    @property
    def sentence(self) -> str:
        """The difference in words; empty where both states are equal."""
        if self.found == self.recorded:
            return ""
        where = f"after update {self.step} the state is {self.found[:12]}, recorded was {self.recorded[:12]}"
        return _judged(where, self.machine, self.recorded_machine)


@dataclass(frozen=True)
class Stretch:
    """The updates between two kept states, trained anew."""

    model: str
    first: int
    """Update of the state that training continued from."""
    last: int
    """Update of the state that the result is compared with."""
    tensors: int
    """Compared tensors."""
    differing: tuple[str, ...]
    """Names of those that differ, and of differing values of the progress; trained weights first."""
    machine: str
    recorded_machine: str | None

    @property
    def sentence(self) -> str:
        """The difference in words; empty where every bit is equal."""
        if not self.differing:
            return ""
        where = (
            f"from update {self.first} to {self.last}: {self.differing[0]} differs from the kept state, and "
            f"{len(self.differing) - 1} more of {self.tensors} tensors"
        )
        return _judged(where, self.machine, self.recorded_machine)


def _judged(where: str, machine: str, recorded: str | None) -> str:
    """A difference, and whether another machine may be the reason."""
    if machine != recorded:
        other = recorded or "a machine that was not recorded"
        return f"{where}; this is another kind of machine ({machine}; trained on {other}), so it shows nothing"
    return f"{where}, on the same kind of machine: code, data or settings are not those of the training"


class _Quiet:
    """A log that keeps nothing."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {}

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Drops the metrics."""


class _Captured:
    """Keeps the state after one update in memory."""

    def __init__(self, update: int) -> None:
        self.updates: tuple[int, ...] = (update,)
        self.tensors: dict[str, Tensor] = {}
        self.progress: dict[str, Any] = {}

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Copies the state."""
        self.tensors = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        self.progress = json.loads(json.dumps(progress))

    def problem(self, step: int) -> str | None:  # noqa: ARG002 - nothing is continued
        """None."""
        return None


def replay(model: str, params: Params) -> Replay:
    """Trains a model of the project in the working folder anew, up to its first recorded state; writes nothing.

    Raises:
        UserError: a merged model, one that was not trained, or a training that recorded no state.
    """
    _require_trained(model, params)
    path = TRAINING / f"{model}.hashes.json"
    recorded: dict[str, str] = integrity.read_json(path).get("states", {})
    if not recorded:
        raise UserError(f"{path}: records no state; it was written by earlier code: `dvc repro` trains anew")
    first = min(map(int, recorded))
    trainer = _trainer(model, params)
    trainer.until = first
    found = trainer.run(None).states.get(str(first), "not reached")
    return Replay(first, recorded[str(first)], found, state.machine(), _machine_of(model))


def replay_stretch(model: str, params: Params) -> Stretch | None:
    """Trains a model from its first kept state to the next anew; writes nothing. None: fewer than two are kept.

    Raises:
        UserError: a merged model, one that was not trained, or a state that is damaged or of another recipe.
    """
    _require_trained(model, params)
    updates = kept.kept_updates(model)
    if len(updates) < 2:
        return None
    first, last = updates[:2]
    expected, progress = kept.at(model, last)
    trainer, captured = _trainer(model, params), _Captured(last)
    trainer.begin_at(kept.at(model, first))
    trainer.until, trainer.keeper = last, captured
    trainer.run(None)
    found = captured.tensors
    differing = {name for name in expected.keys() | found.keys() if not _equal(expected.get(name), found.get(name))}
    before, after = ({f"progress.{k}": v for k, v in one.items()} for one in (progress, captured.progress))
    differing |= {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return Stretch(
        model,
        first,
        last,
        len(expected),
        tuple(sorted(differing, key=_weights_first)),
        state.machine(),
        _machine_of(model),
    )


def _weights_first(name: str) -> tuple[bool, str]:
    return not name.startswith("model."), name


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two tensors have the same bits."""
    if first is None or second is None or first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, other = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second))
    return torch.equal(one, other)


def _require_trained(model: str, params: Params) -> None:
    recipe = params.pretrain if model == "base" else params.finetune.get(model)
    if recipe is None or not recipe.schedule.trains or recipe.task.name == "unchanged":
        raise UserError(f"{model}: it is not made by training here, so there is nothing to replay")


def _trainer(model: str, params: Params) -> Trainer:
    """The trainer of a model of the project, at its start."""
    if model == "base":
        load, _ = start(params.pretrain)
        built = build("pretrain", params.pretrain, "documents", load, params, TOKENIZER)
        return built.trainer(params.pretrain, params, _Quiet(), model)
    recipe = params.finetune[model]
    load, _ = finetune_start(recipe)
    built = build(
        f"finetune.{model}", recipe, recipe.data, load, params, MODELS / recipe.start,
        lambda: checkpoint.load(MODELS / recipe.reference),
    )  # fmt: skip
    return built.trainer(recipe, params, _Quiet(), model)


def _machine_of(model: str) -> str | None:
    """The machine that a model was trained on, if its run recorded it."""
    run = RUNS / ("pretrain.json" if model == "base" else f"finetune@{model}.json")
    return files.read_json(run).get("machine") if run.is_file() else None
