"""Regression: a number for a text, by a linear head with one output (transformers' problem_type `regression`).

The head learns targets in standard deviations from their mean, both taken from the training split and kept in
tohum.json; answers are in the units of the data. The loss is the squared error of the standardised target, so a model
that always answers the mean has a loss of 1. Records are labelled ones whose label is a number (a source with
`label_form: number`).
"""

import statistics
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from pipeline.config.section import Positive, Section
from pipeline.contracts import Predictions
from pipeline.data import label_cells
from pipeline.errors import UserError
from pipeline.prompts import examples
from pipeline.tasks import Reason, ScoringHead, TaskContext, TaskSpec, require_room_for_text
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Length limit."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    head: ClassVar[str] = "classes"
    emits: ClassVar[str] = "number"
    form: ClassVar[str] = "numbers"
    measures: ClassVar[tuple[str, ...]] = ("rmse", "mae")
    max_tokens: Positive = Field(examples=[24])
    """Longest text in tokens, the end-of-text token included; at most the model's context_length."""


def build(settings: Settings, context: TaskContext) -> "Regress":
    """The task for the numbers in the cells of `context`.

    Raises:
        UserError: labels that are no numbers or all equal, or max_tokens exceeds the context_length.
    """
    file = "data/samples/labelled/train.parquet"
    read = [(cell, label_cells.number_in(cell)) for cell in context.label_cells]
    if bad := next((cell for cell, number in read if number is None), None):
        raise UserError(
            f"{file}: label {bad!r:.60} is no number, which task regress needs; write label_form: number in the "
            "source, or use task classify"
        )
    numbers = [number for _, number in read if number is not None]
    if len(set(numbers)) < 2:
        raise UserError(f"{file}: labels found: {', '.join(sorted(set(context.label_cells))) or 'none'}; two or more "
                        "different numbers are expected")  # fmt: skip
    require_room_for_text(settings.max_tokens, context)
    most = settings.max_tokens
    spec = TaskSpec(
        name="regress", mean=statistics.fmean(numbers), deviation=statistics.pstdev(numbers), max_tokens=most,
        max_prompt_tokens=most,
    )  # fmt: skip
    return Regress(spec, context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Regress":
    """The task of a trained model."""
    return Regress(spec, tokenizer)


class Regress(ScoringHead):
    """Squared error of the standardised target."""

    def target(self, record: Mapping[str, Any]) -> float | Reason:
        """The number in standard deviations from the mean."""
        number = examples.target_number(record)
        if isinstance(number, Reason):
            return number
        assert self.spec.mean is not None
        assert self.spec.deviation is not None
        return (number - self.spec.mean) / self.spec.deviation

    def losses_of(self, predictions: Predictions) -> Tensor:
        """losses_B: squared errors in squared standard deviations, as transformers' `MSELoss` before its mean."""
        return (predictions.scores_NC.float().squeeze(1) - predictions.targets_N).square()

    def decisions(self, scores_NC: Tensor) -> Tensor:
        """values_N, standardised as the targets are."""
        return scores_NC.squeeze(1)

    def values(self, standardised_N: Tensor) -> Tensor:
        """Numbers in the units of the data, float64."""
        assert self.spec.mean is not None
        assert self.spec.deviation is not None
        return standardised_N.double() * self.spec.deviation + self.spec.mean

    def answers(self, scores_NC: Tensor) -> list[dict[str, Any]]:
        """The `value` of each text in the units of the data."""
        return [{"value": value} for value in self.values(scores_NC.squeeze(1)).tolist()]

    def shown(self, answer: Mapping[str, Any]) -> str:
        """The number."""
        return f"{answer['value']:.6g}"
