"""One training run with its cadence: resume, log, validate, keep the best, stop early, save state, show progress.

The loop is `loop.fit`; everything here happens between its steps. What reaches the outs (curve, summary, weights) is a
pure function of params, data and code; times and speeds go to the tracker alone.
"""

import gc
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from tqdm import tqdm

from pipeline.config.params import Runtime
from pipeline.config.recipe import Validation
from pipeline.contracts import Examples
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.training import state as states
from pipeline.training import tensors as named
from pipeline.training.interruption import Stop, noted
from pipeline.training.loop import Parts, Step, fit, mean_loss

SAVING_SHARE = 20
"""Saving by time takes at most one part in so many of a training's time."""


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A pass over all objects in the middle of a step makes a GPU wait; memory is freed by reference counts anyway."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


class DivergedError(UserError):
    """A loss that is not finite: these settings learn nothing."""


class Log(Protocol):
    """The part of the tracker that training uses."""

    record: dict[str, Any]

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends metrics of one step."""


@dataclass
class Progress:
    """Where a run stands; everything a resumed run must know besides tensors."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    losses: list[float] = field(default_factory=list)
    """Training losses since the last validation."""
    curve: list[dict[str, float]] = field(default_factory=list)
    stopped_early: bool = False
    tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Strict JSON: an infinite best loss (none yet) becomes null."""
        return self.__dict__ | {"best_loss": None if math.isinf(self.best_loss) else self.best_loss}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Progress":
        """What `as_json` gave. Raises ValueError for anything else."""
        try:
            best = math.inf if value["best_loss"] is None else value["best_loss"]
            found = TypeAdapter(cls).validate_python(value | {"best_loss": best})
        except (KeyError, ValidationError) as error:
            raise ValueError(f"not the progress of a training: {str(error).splitlines()[-1]}") from None
        if found.as_json() != value:
            raise ValueError("not the progress of a training: other fields or types")
        return found


class Trainer:
    """Runs one recipe's parts over its data and leaves the kept weights in the model."""

    def __init__(
        self,
        model: GPT,
        parts: Parts,
        train: Examples,
        validation: Examples,
        cadence: Validation,
        runtime: Runtime,
        log: Log,
        name: str,
    ) -> None:
        self.model, self.parts, self.train, self.validation = model, parts, train, validation
        self.cadence, self.runtime, self.log, self.name = cadence, runtime, log, name
        self.progress = Progress()
        self._best: dict[str, Tensor] = {}
        self._waiting: list[Step] = []
        """Steps whose loss nobody has read yet."""
        self._late = parts.compute.device != "cpu"
        self._seen = 0
        """Tokens of this process's updates."""
        self._saved_at = 0
        """Update of the newest saved state."""
        self._save_after = time.monotonic() + runtime.checkpoint_seconds

    def run(self, state: states.State | None) -> Progress:
        """Trains from the saved state, or from the start, to the end of the schedule or to early stopping.

        With `state`, SIGINT and SIGTERM let the update at work end and save before they take effect; without, nothing
        is saved or continued.

        Raises:
            UserError: a loss is not finite, or there is nothing to train or validate on.
            KeyboardInterrupt: a signal asked for the end; its argument is the signal's number.
        """
        for examples, split in ((self.train, "train"), (self.validation, "validation")):
            if not len(examples):
                raise UserError(f"{self.name}: the {split} split gives no example; see data/samples/ledger.json")
        if state is not None:
            self._resume(state)
        resumed_at, began = self.progress.step, time.perf_counter()
        if not self.parts.schedule.steps:  # open weights or a champion taken as they are: measured, not moved
            self.progress.losses = [mean_loss(self.model, self.parts, self.train, self.cadence.batches)]
            self._validate(state_of=0)
        elif not self.progress.stopped_early:
            self._updates(state, began)
        seconds = time.perf_counter() - began
        self.log.record |= {
            "tokens_per_second": round(self._seen / max(seconds, 1e-9), 1),
            "resumed_at_step": resumed_at,
            "training_seconds": round(seconds, 3),
        }
        self._keep()
        return self.progress

    def _updates(self, state: states.State | None, began: float) -> None:
        """The updates that are left, and what the cadence asks for between them."""
        steps = self.parts.schedule.steps
        shown = None if self.runtime.progress else True
        bar = tqdm(total=steps, initial=self.progress.step, desc=self.name, unit="step", disable=shown)
        with bar, _no_garbage_collection(), self._ending(state) as stop:
            for step in fit(self.model, self.parts, self.train, self.progress.step):
                self.progress.step, self._seen = step.number, self._seen + step.tokens
                self.progress.tokens += step.tokens
                self._waiting.append(step)
                validates = step.number % self.cadence.every == 0 or step.number == steps
                saves = state is not None and step.number < steps and self._save_is_due()
                logs = step.number % self.runtime.log_every == 0 or step.number == 1
                if validates or saves or logs or stop.asked or not self._late:
                    self._read()
                if logs:
                    self._log(step, self._seen / (time.perf_counter() - began))
                if validates:
                    self._validate(state_of=step.number)
                    bar.set_postfix(loss=f"{self.progress.curve[-1]['validation_loss_nats']:.3f}", refresh=False)
                bar.update()
                if self.progress.stopped_early or stop.asked:
                    break
                if saves and state is not None:
                    self._save(state)

    @contextmanager
    def _ending(self, state: states.State | None) -> Iterator[Stop]:
        """Notes signals while the updates run, and saves what they came to.

        Saved after the last update too: the outs may not fit on the disk, or a kill may come while they are written.
        """
        if state is None:
            yield Stop()
            return
        with noted() as stop:
            yield stop
            self._read()
            if self._saved_at != self.progress.step:
                self._save(state)
            if stop.asked:
                print(f"{self.name}: stopped after update {self.progress.step}", file=sys.stderr)
                raise KeyboardInterrupt(stop.asked)

    def _read(self) -> None:
        """Takes the losses of the steps so far from the device: rarely, for whoever reads one waits until it is there.

        Raises:
            DivergedError: one is not finite.
        """
        for step in self._waiting:
            loss = float(step.loss)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"{self.name}: the training loss is {loss} at step {step.number}; lower optimizer.learning_rate or "
                    "look at the data that the gate of the samples let through"
                )
            self.progress.losses.append(loss)
        self._waiting = []

    def _log(self, step: Step, tokens_per_second: float) -> None:
        self.log.log(
            {
                "batch_loss_nats": self.progress.losses[-1],
                "learning_rate": step.learning_rate,
                "gradient_norm": float(step.gradient_norm),
                "tokens_per_second": tokens_per_second,
                **getattr(self.parts.optimizer, "figures", {}),
            },
            step.number,
        )

    def _validate(self, state_of: int) -> None:
        progress = self.progress
        loss = mean_loss(self.model, self.parts, self.validation, self.cadence.batches)
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.name}: the validation loss is {loss} at step {state_of}; lower optimizer.learning_rate or look "
                "at the validation split of data/samples"
            )
        gc.collect()  # what stands in circles, now that the device waits in any case
        mean = sum(progress.losses) / len(progress.losses)
        progress.curve.append({"step": state_of, "train_loss_nats": mean, "validation_loss_nats": loss})
        progress.losses = []
        self.log.log({"validation_loss_nats": loss}, state_of)
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.since_best = loss, state_of, 0
            if self.cadence.keep == "best":
                self._best = {k: p.detach().clone() for k, p in self._trained()}
        else:
            progress.since_best += 1
            progress.stopped_early = bool(self.cadence.patience) and progress.since_best >= self.cadence.patience

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [(k, p) for k, p in self.model.named_parameters() if p.requires_grad]

    def _save_is_due(self) -> bool:
        return self.progress.step % self.runtime.checkpoint_every == 0 or time.monotonic() >= self._save_after

    def _save(self, state: states.State) -> None:
        """Saves, or warns: a full disk costs the state and not the training."""
        began = time.monotonic()
        try:
            state.save(self._tensors(best=self._best), self.progress.as_json())
            self._saved_at = self.progress.step
        except (OSError, MemoryError) as error:
            kept = state.saved()
            then = f"the newest saved one is {kept[0].name}" if kept else "none is saved yet"
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            print(
                f"warning: {self.name}: the state of step {self.progress.step} could not be saved in {state.folder}: "
                f"{reason}; {then}; free space there",
                file=sys.stderr,
            )
        now = time.monotonic()
        self._save_after = now + max(self.runtime.checkpoint_seconds, SAVING_SHARE * (now - began))

    def _tensors(self, best: dict[str, Tensor]) -> dict[str, Tensor]:
        """All tensors that a resumed run must have, by name."""
        tensors = named.pack(self.model, self.parts.optimizer)
        tensors |= {f"best.{k}": v for k, v in best.items()}
        return tensors | {f"weighting.{k}": v for k, v in self.parts.weighting.memory.items()}

    def _resume(self, state: states.State) -> None:
        if saved := state.load(self._unfit):
            tensors, progress = saved
            self._best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
            for name, value in self.parts.weighting.memory.items():
                value.copy_(tensors[f"weighting.{name}"])
            named.unpack(tensors, self.model, self.parts.optimizer)
            self.progress = Progress.from_json(progress)
            self._saved_at = self.progress.step

    def _unfit(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> str | None:
        """What keeps a saved state from being continued, or None; nothing is copied before all of it fits."""
        try:
            found = Progress.from_json(progress)
        except ValueError as error:
            return str(error)
        if not 0 < found.step <= self.parts.schedule.steps:
            return f"step {found.step} is beyond the {self.parts.schedule.steps} steps of the schedule"
        expected = self._tensors(best=dict(self._trained()))
        expected = {name: value for name, value in expected.items() if not name.startswith("optimizer.")}
        return named.unfit(tensors, expected, sum(len(group["params"]) for group in self.parts.optimizer.param_groups))

    @torch.no_grad()
    def _keep(self) -> None:
        """The best weights take the place of the last ones when the params say so."""
        for name, parameter in self._trained():
            if name in self._best:
                parameter.copy_(self._best[name])
