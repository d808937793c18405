"""Replay of the beginning of a training: equal bits after the same updates, from the recorded start, data and code.

A training records the SHA-256 of its weights and optimizer state at its first validation and at its end
(reports/training/<model>.hashes.json). Training anew up to the first of these updates and comparing the state shows
that start, data, settings and code of this stretch are the recorded ones. Later updates are not trained again: data
that is read after that, and a change that acts later, go unseen. Bits are equal on the same CPU model with the same
build of torch and number of threads; elsewhere rounding may differ.
"""

from dataclasses import dataclass
from typing import Any

from pipeline import files, integrity
from pipeline.config.params import Params
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.paths import MODELS, RUNS, TOKENIZER, TRAINING
from pipeline.training import state
from pipeline.training.recipe import build
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
        if self.machine != self.recorded_machine:
            other = self.recorded_machine or "a machine that was not recorded"
            return f"{where}; this is another kind of machine ({self.machine}; trained on {other}), so it shows nothing"
        return f"{where}, on the same kind of machine: code, data or settings are not those of the training"


class _Quiet:
    """A log that keeps nothing."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {}

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Drops the metrics."""


def replay(model: str, params: Params) -> Replay:
    """Trains a model of the project in the working folder anew, up to its first recorded state; writes nothing.

    Raises:
        UserError: a merged model, one that was not trained, or a training that recorded no state.
    """
    recipe = params.pretrain if model == "base" else params.finetune.get(model)
    if recipe is None or not recipe.schedule.trains or recipe.task.name == "unchanged":
        raise UserError(f"{model}: it is not made by training here, so there is nothing to replay")
    path = TRAINING / f"{model}.hashes.json"
    recorded: dict[str, str] = integrity.read_json(path).get("states", {})
    if not recorded:
        raise UserError(f"{path}: records no state; it was written by earlier code: `dvc repro` trains anew")
    first = min(map(int, recorded))
    if model == "base":
        load, _ = start(params.pretrain)
        built = build("pretrain", recipe, "documents", load, params, TOKENIZER)
    else:
        tuned = params.finetune[model]
        load, _ = finetune_start(tuned)
        built = build(
            f"finetune.{model}", tuned, tuned.data, load, params, MODELS / tuned.start,
            lambda: checkpoint.load(MODELS / tuned.reference),
        )  # fmt: skip
    trainer = built.trainer(recipe, params, _Quiet(), model)
    trainer.until = first
    found = trainer.run(None).states.get(str(first), "not reached")
    stage = "pretrain" if model == "base" else f"finetune@{model}"
    run = RUNS / f"{stage}.json"
    known = files.read_json(run).get("machine") if run.is_file() else None
    return Replay(first, recorded[str(first)], found, state.machine(), known)
