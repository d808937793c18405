"""The one loop: ask for a batch, reduce the weighted losses, step, yield. No disk, no clock, no tracker.

It knows no objective, tuner or optimizer by name. Every step is a function of (weights, optimizer state, seed, step),
so a run that stops and continues ends with the same bits as one that never stopped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.config.recipe import Compute, Schedule, seed_for
from pipeline.contracts import Batch, Examples, on_device
from pipeline.model.device import autocast, seed
from pipeline.model.gpt import GPT
from pipeline.objectives import Objective
from pipeline.ordering import Ordering
from pipeline.training.schedule import factor, micro_batches
from pipeline.weighting import Weighting


@dataclass(frozen=True)
class Parts:
    """What a recipe is made of, built and ready."""

    objective: Objective
    losses: Callable[[GPT, Batch], Tensor]
    """What is minimised, one per example: the objective's own losses with what an auxiliary loss adds."""
    ordering: Ordering
    weighting: Weighting
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    compute: Compute
    seed: int
    gradients: "Gradients | None" = None
    """Another way to an update's gradients (private.py); none: those of the batch's mean loss."""


class Gradients(Protocol):
    """Leaves the gradients of update `number` (from 0) in the weights; the loss and the positions seen."""

    def __call__(
        self, model: GPT, parts: Parts, examples: Examples, number: int, device: torch.device
    ) -> tuple[Tensor, int]: ...


class Step(NamedTuple):
    """One update. `loss` stays a tensor, so that nobody waits for the device who does not look."""

    number: int
    """Updates done, from 1."""
    loss: Tensor
    """Mean over the update's examples, nats."""
    learning_rate: float
    gradient_norm: Tensor
    """Before clipping; 0 where clipping is off."""
    tokens: int
    """Input positions of the update, padding included."""


def fit(model: GPT, parts: Parts, examples: Examples, start: int = 0) -> Iterator[Step]:
    """Trains `model` in place from update `start` to the last of the schedule, yielding after each update."""
    trained = [p for group in parts.optimizer.param_groups for p in group["params"]]
    device = trained[0].device
    for number in range(start, parts.schedule.steps):
        if not model.training:  # to say so costs a small model 3 % of a step
            model.train()
        rate = factor(parts.schedule, number)
        for group in parts.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        waiting = [
            p for group in parts.optimizer.param_groups if not _moves(group, parts, number) for p in group["params"]
        ]
        seed(device, seed_for(parts.seed, "dropout", number))
        for p in waiting:
            p.requires_grad_(False)
        loss, tokens = (parts.gradients or _accumulate)(model, parts, examples, number, device)
        for p in waiting:
            p.requires_grad_(True)
        norm = torch.zeros(())
        if parts.schedule.clip_norm:
            norm = nn.utils.clip_grad_norm_(trained, parts.schedule.clip_norm)
        with autocast(parts.compute):  # an optimizer may multiply matrices
            parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=True)
        yield Step(number + 1, loss, parts.optimizer.param_groups[0]["lr"], norm, tokens)


def _moves(group: dict[str, Any], parts: Parts, number: int) -> bool:
    """Whether a tuner lets this group move yet (gradual unfreezing)."""
    return bool(number >= group["begins"] * parts.schedule.steps)


def _accumulate(model: GPT, parts: Parts, examples: Examples, number: int, device: torch.device) -> tuple[Tensor, int]:
    """Gradients of one update, summed over its micro-batches; the mean loss and the positions seen."""
    total, tokens = torch.zeros((), device=device), 0
    wanted = micro_batches(parts.schedule, number)
    for micro in wanted:
        rows = parts.ordering.rows(len(examples), micro, parts.seed)
        if not len(rows):  # an order may draw nobody
            continue
        batch = on_device(parts.objective.collate([examples[int(i)] for i in rows]), model)
        batch["rows"] = torch.from_numpy(rows)
        with autocast(parts.compute):
            losses_B = parts.losses(model, batch)
        weights_B = parts.weighting.weights(losses_B, batch)
        # all weights zero: the batch teaches nothing, and must not divide by nothing
        loss = (weights_B * losses_B).sum() / weights_B.sum().clamp(min=1e-12)
        (loss / len(wanted)).backward()
        total += loss.detach() / len(wanted)
        tokens += batch["inputs"].numel()
    return total, tokens


@torch.no_grad()
def mean_loss(model: GPT, parts: Parts, examples: Examples, batches: int) -> float:
    """Mean loss in nats over the first examples (at most `batches` batches): the same examples at every call."""
    losses = [losses_B.double() for losses_B in _in_order(model, parts, examples, batches)]
    return float(sum(float(losses_B.sum()) for losses_B in losses) / sum(map(len, losses)))


def _in_order(model: GPT, parts: Parts, examples: Examples, batches: int) -> Iterator[Tensor]:
    """losses_B of batch after batch of the examples in their order, at most `batches`."""
    model.eval()
    size = parts.ordering.batch_size
    for first in range(0, min(len(examples), batches * size), size):
        chosen = [examples[i] for i in range(first, min(first + size, len(examples)))]
        with autocast(parts.compute):
            yield parts.objective.losses(model, on_device(parts.objective.collate(chosen), model)).float()
