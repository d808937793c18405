"""One training run with its cadence: resume, log, validate, keep the best, stop early, save state, show progress.

The loop is `loop.fit`; everything here happens between its steps. What reaches the outs (curve, summary, weights) is a
pure function of params, data and code; times and speeds go to the tracker alone.
"""

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.config import Runtime, UserError, Validation
from pipeline.learner import Examples
from pipeline.model.gpt import GPT
from pipeline.training import state as states
from pipeline.training.loop import Parts, Step, fit, mean_loss


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
        """What `as_json` gave."""
        return cls(**(value | {"best_loss": math.inf if value["best_loss"] is None else value["best_loss"]}))


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

    def run(self, state: states.State) -> Progress:
        """Trains from the saved state, or from the start, to the end of the schedule or to early stopping.

        Raises:
            UserError: the loss is not finite, or there is nothing to train or validate on.
        """
        for examples, split in ((self.train, "train"), (self.validation, "validation")):
            if not len(examples):
                raise UserError(f"{self.name}: the {split} split gives no example; see data/samples/ledger.json")
        self._resume(state)
        resumed_at, began, seen = self.progress.step, time.perf_counter(), 0
        steps = self.parts.schedule.steps
        bar = tqdm(
            total=steps,
            initial=resumed_at,
            desc=self.name,
            unit="step",
            disable=None if self.runtime.progress else True,
        )
        if not self.progress.stopped_early:
            with _no_garbage_collection():
                for step in fit(self.model, self.parts, self.train, resumed_at):
                    self.progress.step, seen = step.number, seen + step.tokens
                    self.progress.tokens += step.tokens
                    self._waiting.append(step)
                    validates = step.number % self.cadence.every == 0 or step.number == steps
                    saves = step.number % self.runtime.checkpoint_every == 0 and step.number < steps
                    logs = step.number % self.runtime.log_every == 0 or step.number == 1
                    if validates or saves or logs or not self._late:
                        self._read()
                    if logs:
                        self._log(step, seen / (time.perf_counter() - began))
                    if validates:
                        self._validate(state_of=step.number)
                        bar.set_postfix(loss=f"{self.progress.curve[-1]['validation_loss_nats']:.3f}", refresh=False)
                    bar.update()
                    if self.progress.stopped_early:
                        break
                    if saves:
                        self._save(state)
        if not steps:  # open weights or a champion taken as they are: measured, not moved
            self.progress.losses = [mean_loss(self.model, self.parts, self.train, self.cadence.batches)]
            self._validate(state_of=0)
        bar.close()
        seconds = time.perf_counter() - began
        self.log.record |= {
            "tokens_per_second": round(seen / max(seconds, 1e-9), 1),
            "resumed_at_step": resumed_at,
            "training_seconds": round(seconds, 3),
        }
        self._keep()
        return self.progress

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
                "train_loss_nats": self.progress.losses[-1],
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

    def _save(self, state: states.State) -> None:
        tensors = states.pack(self.model, self.parts.optimizer)
        tensors |= {f"best.{k}": v for k, v in self._best.items()}
        tensors |= {f"weighting.{k}": v for k, v in self.parts.weighting.memory.items()}
        state.save(tensors, self.progress.as_json())

    def _resume(self, state: states.State) -> None:
        if saved := state.load():
            tensors, progress = saved
            self._best = {k.removeprefix("best."): v for k, v in tensors.items() if k.startswith("best.")}
            for name, value in self.parts.weighting.memory.items():
                value.copy_(tensors[f"weighting.{name}"])
            states.unpack(tensors, self.model, self.parts.optimizer)
            self.progress = Progress.from_json(progress)

    @torch.no_grad()
    def _keep(self) -> None:
        """The best weights take the place of the last ones when the params say so."""
        for name, parameter in self._trained():
            if name in self._best:
                parameter.copy_(self._best[name])
