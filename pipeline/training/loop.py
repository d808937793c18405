"""The training loop: batch, weighted losses, gradients, optimizer step. No disk, no clock, no tracker.

It is independent of task, loss, tuner and optimizer, and takes its micro-batches from the recipe's experience. Every
update is a function of (weights, optimizer state, modules of the loss, buffer of the experience, seed, number of the
update), so a resumed run ends with the same bits as one that was never interrupted.

Shapes: B examples of a micro-batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.config.recipe import Compute, Schedule
from pipeline.contracts import Batch, Examples, on_device
from pipeline.experience import Experience
from pipeline.losses import Loss
from pipeline.model.device import autocast, seed
from pipeline.model.gpt import GPT
from pipeline.ordering import Ordering
from pipeline.seeds import seed_for
from pipeline.tasks import Task
from pipeline.training.schedule import learning_rate_factor
from pipeline.weighting import Weighting


@dataclass(frozen=True)
class Parts:
    """The built parts of a recipe."""

    task: Task
    loss: Loss
    """Its `losses` are minimised."""
    ordering: Ordering
    weighting: Weighting
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    """In updates (schedule.resolved)."""
    compute: Compute
    seed: int
    gradients: "Gradients | None" = None
    """Computes an update's gradients (private.py); None: the gradients of the mean loss."""


class Gradients(Protocol):
    """A function that computes the gradients of one update."""

    def __call__(
        self, model: GPT, parts: Parts, experience: Experience, number: int, device: torch.device
    ) -> tuple[Tensor, int]:
        """Leaves the gradients of update `number` (from 0) in `grad`; returns the loss and the number of positions."""


class Step(NamedTuple):
    """One update. `loss` stays a tensor on the device: reading its value would wait for the device."""

    number: int
    """Number of the update, from 1."""
    loss: Tensor
    """Mean over the update's examples, nats."""
    learning_rate: float
    gradient_norm: Tensor
    """Before clipping; 0 where clipping is off."""
    tokens: int
    """Input positions of the update, padding included."""


def fit(model: GPT, parts: Parts, experience: Experience, start: int = 0) -> Iterator[Step]:
    """Trains `model` in place from update `start` to the last of the schedule, yielding after each update."""
    trained = [p for group in parts.optimizer.param_groups for p in group["params"]]
    device = trained[0].device
    for number in range(start, parts.schedule.updates):
        experience.begin(model, number)
        if not model.training:  # calling train() takes 3 % of a small model's update
            model.train()
        factor = learning_rate_factor(parts.schedule, number)
        for group in parts.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        frozen = [
            p for group in parts.optimizer.param_groups if not _trains(group, parts, number) for p in group["params"]
        ]
        seed(device, seed_for(parts.seed, "dropout", number))
        for p in frozen:
            p.requires_grad_(False)
        loss, tokens = (parts.gradients or _accumulate)(model, parts, experience, number, device)
        for p in frozen:
            p.requires_grad_(True)
        norm = torch.zeros(())
        if parts.schedule.clip_norm:
            norm = nn.utils.clip_grad_norm_(trained, parts.schedule.clip_norm)
        with autocast(parts.compute):  # Muon multiplies matrices
            parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        yield Step(number + 1, loss, parts.optimizer.param_groups[0]["lr"], norm, tokens)


def _trains(group: dict[str, Any], parts: Parts, number: int) -> bool:
    """Whether this parameter group is trained at update `number` (gradual unfreezing)."""
    return bool(number >= group["begins"] * parts.schedule.updates)


def _accumulate(
    model: GPT, parts: Parts, experience: Experience, number: int, device: torch.device
) -> tuple[Tensor, int]:
    """Accumulates the gradients of an update's micro-batches; returns the mean loss and the number of positions.

    The unit is the update: weighted losses are summed over all of its micro-batches and divided once by the sum of the
    weights, so `accumulate` changes memory and time, not the result (tests/training/test_loop.py). Random draws of the
    forward pass (dropout, the start of an adversarial perturbation) are per micro-batch and do differ.
    """
    drawn = experience.batches(number)
    batches: Iterator[Batch] = (micro_batch() for micro_batch in drawn)
    if parts.weighting.by_update and len(drawn) > 1:
        batches = iter(parts.weighting.begin(list(batches)))
    expected = sum(map(len, drawn))
    total, weight, tokens = torch.zeros((), device=device), torch.zeros((), device=device), 0
    for batch in batches:
        with autocast(parts.compute):
            losses_B = parts.loss.losses(model, batch)
        weights_B = parts.weighting.weights(losses_B, batch)
        sum_ = weights_B.sum()
        # Of one micro-batch the sum of weights is known; of several the number of examples stands in for it.
        divisor = sum_.clamp(min=1e-12) if len(drawn) == 1 else expected
        loss = (weights_B * losses_B).sum() / divisor
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        total += loss.detach()
        weight += sum_.detach()
        tokens += batch["inputs"].numel()
    if len(drawn) > 1 and not parts.weighting.uniform:
        scale = expected / weight.clamp(min=1e-12)  # if all weights are zero, loss and gradients are zero, not NaN
        for group in parts.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.mul_(scale)
        total *= scale
    return total, tokens


@torch.no_grad()
def mean_loss(model: GPT, parts: Parts, examples: Examples, batches: int) -> float:
    """Validation loss in nats: the task's mean over the first `batches` batches, the same ones at every call."""
    losses = [losses_B.double() for losses_B in _losses_in_order(model, parts, examples, batches)]
    return float(sum(float(losses_B.sum()) for losses_B in losses) / sum(map(len, losses)))


@torch.no_grad()
def scores_and_targets(model: GPT, parts: Parts, examples: Examples) -> tuple[Tensor, Tensor]:
    """scores_NC, float32, and targets_N of all examples of a task that answers with scores, on the CPU."""
    model.eval()
    batches = batches_in_order(model, parts, examples, len(examples))
    with autocast(parts.compute):
        made = [parts.task.predictions(model, batch) for batch in batches]
    return torch.cat([p.scores_NC.float().cpu() for p in made]), torch.cat([p.targets_N.cpu() for p in made])


def batches_in_order(model: GPT, parts: Parts, examples: Examples, batches: int) -> Iterator[Batch]:
    """Consecutive batches of the examples, at most `batches`."""
    size = parts.ordering.batch_size
    for first in range(0, min(len(examples), batches * size), size):
        chosen = [examples[i] for i in range(first, min(first + size, len(examples)))]
        yield on_device(parts.task.collate(chosen), model)


def _losses_in_order(model: GPT, parts: Parts, examples: Examples, batches: int) -> Iterator[Tensor]:
    """losses_B of consecutive batches of the examples, at most `batches`."""
    model.eval()
    for batch in batches_in_order(model, parts, examples, batches):
        with autocast(parts.compute):
            yield parts.task.losses(model, batch).float()
