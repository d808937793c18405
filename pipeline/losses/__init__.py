"""Losses: what an update minimises. Each file is one loss: `build(settings, learner) -> Loss`.

`Loss.losses(model, batch) -> losses_B` is minimised in training. Validation computes the task's own cross-entropy, so
runs with different losses can be compared, unless a loss has a validation of its own.

A loss declares in its Settings `takes` (what a task may emit), `roles` (reference, judge) and `source`: the experience
that it learns from (`records`, which is the default, or `rollouts`).

Shapes: B examples, S rows of a batch (several answers an example), N predicted positions, E examples of a table.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.contracts import Batch, Examples, Learner, on_device, row_sums, token_logprobs
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT

_BATCH_SIZE = 32  # examples of `reference_logprobs`: only the number that is computed together
_EQUAL = 1e-5  # rewards that differ by less are equal but for rounding, as those of a model that is its own reference


class Loss(ABC):
    """A loss over the examples of a task; it may hold a reference model, a judge and modules that are trained."""

    @cached_property
    def modules(self) -> nn.ModuleDict:
        """Modules of the loss's own, such as a value model; none by default, and a loss that has some sets them when it
        is made. They are trained with the model and kept in the training state, never in the model folder.
        """
        return nn.ModuleDict()

    @abstractmethod
    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B in nats, with gradients."""

    def columns(self, model: GPT, examples: Examples) -> dict[str, Tensor]:  # noqa: ARG002 - for losses with columns
        """Further tensors of every example, computed once and given to `losses` in `batch` under their names.

        They are computed before the first update, for the training and for the validation records; with rollouts
        whenever the buffer is filled.

        Args:
            model: the model before the updates that use the columns.
            examples: E examples; with rollouts a RolloutExamples.

        Returns:
            Tensors with first dimension E. A second one is aligned with the targets of `collate` (position t predicts
            token t + 1), padded on the right with 0, and cut to the width of each batch.
        """
        return {}

    def validate(self, model: GPT, batches: Iterable[Batch]) -> dict[str, float] | None:  # noqa: ARG002 - as above
        """The figures of a validation, without gradients; None: the mean of the task's own loss.

        Args:
            model: in evaluation mode.
            batches: of held-out examples, with their columns; to be read once.

        Returns:
            `loss`, which `keep: best` minimises, and any further measures (margin, reward, kl_nats): they go into the
            curve and to the tracker as validation_<name>.
        """
        return None


def answer_logprobs(learner: Learner, model: GPT, batch: Batch) -> tuple[Tensor, Tensor]:
    """logprobs_S, ln p(answer | prompt) summed over its tokens, and their number, for every row of a batch."""
    predictions = learner.task.predictions(model, batch)
    return row_sums(token_logprobs(predictions), predictions, len(batch["inputs"]))


@torch.no_grad()
def reference_logprobs(learner: Learner, reference: GPT, examples: Examples) -> Tensor:
    """logprobs_KE under the reference model of the K answers of every example (`answer_logprobs`), float32.

    Examples of like length share a batch.
    """
    lengths = [learner.task.collate([examples[i]])["inputs"].shape[1] for i in range(len(examples))]
    order = np.argsort(lengths, kind="stable")
    parts: list[Tensor] = []
    for first in range(0, len(order), _BATCH_SIZE):
        chosen: list[Any] = [examples[int(i)] for i in order[first : first + _BATCH_SIZE]]
        batch = on_device(learner.task.collate(chosen), reference)
        with autocast(learner.compute):
            parts.append(answer_logprobs(learner, reference, batch)[0].reshape(-1, len(chosen)))
    sorted_KE = torch.cat(parts, dim=1).float()
    logprobs_KE = torch.empty_like(sorted_KE)
    logprobs_KE[:, torch.from_numpy(order).to(sorted_KE.device)] = sorted_KE
    return logprobs_KE


def pair_figures(losses_E: Tensor, chosen_E: Tensor, rejected_E: Tensor) -> dict[str, float]:
    """loss, pair_accuracy and margin of pairs by the rewards of both answers; equal rewards are half right."""
    margins_E = (chosen_E - rejected_E).double()
    return {
        "loss": float(losses_E.double().mean()),
        "pair_accuracy": share_above(margins_E),
        "margin": float(margins_E.mean()),
    }


def share_above(values_N: Tensor) -> float:
    """The share of values above 0; a value within rounding of 0 counts half."""
    values_N = values_N.double()
    return float(((values_N > _EQUAL).double() + 0.5 * (values_N.abs() <= _EQUAL)).mean())
