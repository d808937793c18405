"""Validation by a task's measure: loss and measure of the same batches in one pass.

A recipe's `validation.keep: {measure: accuracy}` keeps the weights with the best measure instead of the lowest loss;
the loss decides between equal measures. The measure is computed on the answers without decision thresholds:

    accuracy     share of texts whose label (multi_label: whole label set) is right
    f1           F1, the mean over the labels (macro-averaged)
    exact_match  share of examples whose learned answers are predicted token by token: exactly the answers that greedy
                 decoding would give, for it stays on the answer as long as every token is predicted right
    rmse, mae    errors of a regression in the units of the data

`error` is what training and `tohum search` minimise: the measure itself for errors, 1 - measure for shares.

A loss may validate in its own way (`Loss.validate`), and an experience measures what it made (rollouts: reward,
kl_nats); their figures stand beside the loss, and a `loss` among them replaces the task's.

Shapes: N predicted positions, B examples, C classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config.recipe import Validation
from pipeline.contracts import Examples, Predictions
from pipeline.experience import Experience
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.tasks import Task
from pipeline.training.loop import Parts, batches_in_order, mean_loss

ERRORS = frozenset({"rmse", "mae"})
"""Measures of which lower values are better."""


class Validated(NamedTuple):
    """A validation."""

    loss: float
    """Mean loss of the task, nats; or the loss's own."""
    measures: dict[str, float]
    """The measure that `keep` names; empty where weights are kept by the loss."""
    figures: dict[str, float] = {}  # noqa: RUF012 - never changed
    """Further figures, which decide nothing."""

    @property
    def error(self) -> float:
        """The value to minimise: the loss, or the error of the measure."""
        for name, value in self.measures.items():
            return error_of(name, value)
        return self.loss


class _Answered(NamedTuple):
    """The answers of one batch."""

    decisions_N: Tensor
    targets_N: Tensor
    rows_N: Tensor
    n_examples: int


def error_of(measure: str, value: float) -> float:
    """The value to minimise of a measure."""
    return value if measure in ERRORS else 1.0 - value


def measure_of(validation: Validation) -> str | None:
    """The measure that weights are kept by; None: the loss."""
    return None if isinstance(validation.keep, str) else validation.keep.measure


def validate(model: GPT, parts: Parts, experience: Experience, examples: Examples, validation: Validation) -> Validated:
    """Loss and measure on the first batches of the examples, the same ones at every call."""
    name, batches = measure_of(validation), validation.batches
    figures = _own_figures(model, parts, experience, examples, batches)
    loss = figures.pop("loss", None)
    if name is not None:
        found = _with_measure(model, parts, examples, batches, name)
        return found._replace(loss=found.loss if loss is None else loss, figures=figures)
    return Validated(mean_loss(model, parts, examples, batches) if loss is None else loss, {}, figures)


@torch.no_grad()
def _own_figures(
    model: GPT, parts: Parts, experience: Experience, examples: Examples, batches: int
) -> dict[str, float]:
    """The figures of experience and loss; the loss's come second, so that its `loss` decides."""
    model.eval()
    held_out = experience.held_out(model, examples, batches)
    with autocast(parts.compute):
        own = parts.loss.validate(model, held_out.batches)
    return held_out.figures | (own or {})


@torch.no_grad()
def _with_measure(model: GPT, parts: Parts, examples: Examples, batches: int, name: str) -> Validated:
    model.eval()
    losses: list[Tensor] = []
    answered: list[_Answered] = []
    for batch in batches_in_order(model, parts, examples, batches):
        with autocast(parts.compute):
            predictions = parts.task.predictions(model, batch)
            losses.append(parts.task.losses_of(predictions).double())
        answered.append(_answered(parts.task, predictions))
    loss = float(sum(float(losses_B.sum()) for losses_B in losses) / sum(map(len, losses)))
    return Validated(loss, {name: _value(name, parts.task, answered)})


def _answered(task: Task, predictions: Predictions) -> _Answered:
    decisions_N = task.decisions(predictions.scores_NC.float())
    targets_N, rows_N = predictions.targets_N.cpu(), predictions.rows_N.cpu()
    return _Answered(decisions_N.cpu(), targets_N, rows_N, predictions.n_examples)


def _value(name: str, task: Task, answered: Sequence[_Answered]) -> float:
    if name == "exact_match":
        return sum(_exact(batch) for batch in answered) / sum(batch.n_examples for batch in answered)
    decisions_N = torch.cat([batch.decisions_N for batch in answered])
    targets_N = torch.cat([batch.targets_N for batch in answered])
    if name == "accuracy":
        right_N = decisions_N == targets_N
        return float((right_N if right_N.dim() == 1 else right_N.all(1)).double().mean())
    if name == "f1":
        return _macro_f1(decisions_N, targets_N, len(task.spec.outputs))
    deviation = task.spec.deviation
    assert deviation is not None
    errors_N = (decisions_N - targets_N).double() * deviation
    return float(errors_N.square().mean().sqrt() if name == "rmse" else errors_N.abs().mean())


def _exact(batch: _Answered) -> int:
    """Number of examples with a learned position and no wrong one."""
    wrong_B = torch.zeros(batch.n_examples).index_add(0, batch.rows_N, (batch.decisions_N != batch.targets_N).float())
    there_B = torch.zeros(batch.n_examples).index_add(0, batch.rows_N, torch.ones(len(batch.rows_N)))
    return int(((wrong_B == 0) & (there_B > 0)).sum())


def _macro_f1(decisions_N: Tensor, targets_N: Tensor, n_labels: int) -> float:
    """Mean F1 of the labels, 0 for a label that is never answered right; of class indices or of rows of 0 and 1."""
    if decisions_N.dim() == 1:
        decisions_N, targets_N = (torch.nn.functional.one_hot(x.long(), n_labels) for x in (decisions_N, targets_N))
    hits_C = (decisions_N * targets_N).double().sum(0)
    total_C = decisions_N.double().sum(0) + targets_N.double().sum(0)
    return float((2 * hits_C / total_C.clamp(min=1)).mean())
