"""One training run: resume, log, validate, keep the best weights, stop early, save checkpoints, show progress.

The loop is `loop.fit`; everything here happens between its updates. The outs (curve, summary, weights) are a pure
function of params, data and code; times and speeds go only to the tracker.
"""

import gc
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from pipeline.config.params import Runtime
from pipeline.config.recipe import Validation
from pipeline.contracts import Examples
from pipeline.errors import UserError
from pipeline.experience import Experience
from pipeline.model.gpt import GPT
from pipeline.training import content
from pipeline.training import state as states
from pipeline.training import tensors as named
from pipeline.training.interruption import StopRequest, deferred_signals
from pipeline.training.loop import Parts, Step, fit, mean_loss
from pipeline.training.progress import Progress
from pipeline.training.validation import validate

SAVING_SHARE = 20
"""Saving by time takes at most one part in this many of the training time."""


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Switches the cyclic garbage collector off: a collection during an update makes a GPU wait."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class DivergedError(UserError):
    """A loss that is not finite."""


class Log(Protocol):
    """The part of a run's tracker that the trainer uses."""

    record: dict[str, Any]
    """Figures of the run that differ from run to run: times, speeds."""

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends metrics of one step."""


class Keeper(Protocol):
    """Keeps the states after some updates (kept.py)."""

    updates: tuple[int, ...]

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Keeps the state of `progress["step"]`."""

    def problem(self, step: int) -> str | None:
        """The reason why a run that continues from `step` would lack a state, or None."""


class Trainer:
    """Trains one recipe's parts on its examples and leaves the kept weights (last or best) in the model."""

    def __init__(  # noqa: PLR0913 - model, parts, two splits and four settings of one run
        self,
        model: GPT,
        parts: Parts,
        experience: Experience,
        validation: Examples,
        cadence: Validation,
        runtime: Runtime,
        log: Log,
        name: str,
    ) -> None:
        self.model, self.parts, self.experience, self.validation = model, parts, experience, validation
        self.cadence, self.runtime, self.log, self.name = cadence, runtime, log, name
        self.progress = Progress()
        self._best: dict[str, Tensor] = {}
        self._unread: list[Step] = []
        """Updates whose loss is still a tensor on the device."""
        self._reads_late = parts.compute.device != "cpu"
        """Whether losses are read only when they are logged: on a GPU reading one waits for the device."""
        self.until: int | None = None
        """Update after which the run ends, for a replay of its beginning; None: the schedule's last."""
        self.keeper: Keeper | None = None
        """Keeps states after fixed updates; None: none are kept."""
        self._tokens = 0
        """Tokens of this process's updates."""
        self._saved_at = 0
        """Update of the newest saved state."""
        self._save_after = time.monotonic() + runtime.checkpoint_seconds

    def run(self, state: states.State | None) -> Progress:
        """Trains from the saved state, or from the start, to the end of the schedule or to early stopping.

        With `state`, SIGINT and SIGTERM take effect after the current update is finished and saved; without, nothing is
        saved or resumed.

        Raises:
            UserError: a loss is not finite, or a split has no examples.
            KeyboardInterrupt: a signal requested the end; its argument is the signal's number.
        """
        train = self.experience.examples
        for examples, split in ((train, "train"), (self.validation, "validation")):
            if not len(examples):
                raise UserError(f"{self.name}: the {split} split gives no example; see data/samples/ledger.json")
        if state is not None:
            self._resume(state)
        resumed_at, began = self.progress.step, time.perf_counter()
        if not self.parts.schedule.trains:  # open weights or a champion used as they are: validated, not trained
            self.progress.losses = [mean_loss(self.model, self.parts, train, self.cadence.batches)]
            self._validate(state_of=0)
        elif not self.progress.stopped_early:
            self._updates(state, began)
        seconds = time.perf_counter() - began
        self.log.record |= {
            "tokens_per_second": round(self._tokens / max(seconds, 1e-9), 1),
            "resumed_at_step": resumed_at,
            "training_seconds": round(seconds, 3),
        }
        self._keep()
        return self.progress

    def _updates(self, state: states.State | None, began: float) -> None:
        """Runs the remaining updates; logs, validates and saves between them."""
        steps = self.parts.schedule.updates
        shown = None if self.runtime.progress else True
        bar = tqdm(total=steps, initial=self.progress.step, desc=self.name, unit="step", disable=shown)
        with bar, _no_garbage_collection(), self._saving_at_the_end(state) as stop:
            for step in fit(self.model, self.parts, self.experience, self.progress.step):
                self.progress.step, self._tokens = step.number, self._tokens + step.tokens
                self.progress.tokens += step.tokens
                self._unread.append(step)
                validates = step.number % self.cadence.every == 0 or step.number == steps
                saves = state is not None and step.number < steps and self._save_is_due()
                keeps = self.keeper is not None and step.number in self.keeper.updates
                logs = step.number % self.runtime.log_every == 0 or step.number == 1
                if validates or saves or keeps or logs or stop.signal or not self._reads_late:
                    self._read()
                if logs:
                    self._log(step, self._tokens / (time.perf_counter() - began))
                if validates:
                    self._validate(state_of=step.number)
                if validates or self.experience.figures:
                    bar.set_postfix(self.progress.shown(self.experience.figures), refresh=False)
                digests = not self.progress.states or step.number == steps or self.progress.stopped_early
                if validates and digests:
                    self.progress.states[str(step.number)] = named.digest(self._tensors(best={}))
                if keeps and self.keeper is not None:
                    self.keeper.save(self._tensors(best=self._best), self.progress.as_json())
                bar.update()
                if self.progress.stopped_early or stop.signal or step.number == self.until:
                    break
                if saves and state is not None:
                    self._save(state)

    @contextmanager
    def _saving_at_the_end(self, state: states.State | None) -> Iterator[StopRequest]:
        """Defers signals while the updates run, then saves their state.

        The state after the last update is saved too: the disk may be full when the outs are written, or the process may
        be killed.
        """
        if state is None:
            yield StopRequest()
            return
        with deferred_signals() as stop:
            yield stop
            self._read()
            if self._saved_at != self.progress.step:
                self._save(state)
            if stop.signal:
                print(f"{self.name}: stopped after update {self.progress.step}", file=sys.stderr)
                raise KeyboardInterrupt(stop.signal)

    def _read(self) -> None:
        """Reads the losses of the updates so far from the device, which waits for it.

        Raises:
            DivergedError: a loss is not finite.
        """
        for step in self._unread:
            loss = float(step.loss)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"{self.name}: the training loss is {loss} at step {step.number}; lower optimizer.learning_rate or "
                    "look at the training split in data/samples"
                )
            self.progress.losses.append(loss)
        self._unread = []

    def _log(self, step: Step, tokens_per_second: float) -> None:
        self.log.log(
            {
                "batch_loss_nats": self.progress.losses[-1],
                "learning_rate": step.learning_rate,
                "gradient_norm": float(step.gradient_norm),
                "tokens_per_second": tokens_per_second,
                **getattr(self.parts.optimizer, "figures", {}),
                **{f"block_{name}": value for name, value in self.experience.figures.items()},
            },
            step.number,
        )

    def _validate(self, state_of: int) -> None:
        progress = self.progress
        validated = validate(self.model, self.parts, self.experience, self.validation, self.cadence)
        loss, found = validated.loss, validated.measures | validated.figures
        measures = {f"validation_{name}": value for name, value in found.items()}
        if not math.isfinite(loss):
            raise DivergedError(
                f"{self.name}: the validation loss is {loss} at step {state_of}; lower optimizer.learning_rate or look "
                "at the validation split of data/samples"
            )
        gc.collect()  # the collector is off during updates; here the device waits anyway
        mean = sum(progress.losses) / len(progress.losses)
        point = {"step": state_of, "train_loss_nats": mean, "validation_loss_nats": loss} | measures
        progress.curve.append(dict(sorted(point.items())))  # as in a saved state: the curve's columns after a kill
        progress.losses = []
        self.log.log({"validation_loss_nats": loss} | measures, state_of)
        progress.best_loss = min(progress.best_loss, loss)
        if (validated.error, loss) < (progress.best_error, progress.best_error_loss):
            progress.best_error, progress.best_error_loss = validated.error, loss
            progress.best_step, progress.since_best = state_of, 0
            if self.cadence.keep != "last":
                self._best = {k: p.detach().clone() for k, p in self._trained()}
        else:
            progress.since_best += 1
            progress.stopped_early = bool(self.cadence.patience) and progress.since_best >= self.cadence.patience

    def _trained(self) -> list[tuple[str, Tensor]]:
        return [(k, p) for k, p in self.model.named_parameters() if p.requires_grad]

    def _save_is_due(self) -> bool:
        return self.progress.step % self.runtime.checkpoint_every == 0 or time.monotonic() >= self._save_after

    def _save(self, state: states.State) -> None:
        """Saves the state; warns if it cannot: a full disk must not end the training."""
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
        """All tensors that a resumed run needs, by name."""
        return content.tensors(self.model, self.parts, self.experience, best)

    def _resume(self, state: states.State) -> None:
        if saved := state.load(self._mismatch):
            self.begin_at(saved)

    def begin_at(self, saved: states.Saved) -> None:
        """Continues from a saved state.

        Raises:
            UserError: it is of another training.
        """
        tensors, progress = saved
        if reason := self._mismatch(tensors, progress):
            raise UserError(f"{self.name}: the saved state does not fit this training: {reason}")
        self._best = content.below("best.", tensors)
        content.restore(tensors, self.model, self.parts, self.experience)
        self.progress = Progress.from_json(progress)
        self._saved_at = self.progress.step

    def _mismatch(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> str | None:
        """The reason why a saved state cannot be resumed, or None; checked before any tensor is copied."""
        try:
            saved = Progress.from_json(progress)
        except ValueError as error:
            return str(error)
        if not 0 < saved.step <= self.parts.schedule.updates:
            return f"step {saved.step} is beyond the {self.parts.schedule.updates} steps of the schedule"
        if self.keeper is not None and (problem := self.keeper.problem(saved.step)):
            return problem
        return content.mismatch(tensors, self._tensors(best=dict(self._trained())), self.parts, self.experience)

    @torch.no_grad()
    def _keep(self) -> None:
        """Copies the best weights into the model if they were kept."""
        for name, parameter in self._trained():
            if name in self._best:
                parameter.copy_(self._best[name])
