"""Multi-label classification: any number of labels a text, each decided on its own by a sigmoid.

The head is that of classify with one output a label; the loss is the binary cross-entropy of every label. It is
transformers' problem_type `multi_label_classification`, so the trained folder loads as
<Family>ForSequenceClassification. Records are labelled ones whose label holds a JSON list (a source with `label_form:
several`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.contracts import Predictions
from pipeline.data import label_cells
from pipeline.errors import UserError
from pipeline.prompts import examples, thresholds
from pipeline.tasks import Reason, ScoringHead, TaskContext, TaskSpec, require_room_for_text
from pipeline.tokenizer import Tokenizer


class Decide(Section):
    """The rule that decides which labels a text gets."""

    by: Literal["half", "f1"]
    """half: every label with a probability of at least 0.5; f1: the threshold of each label that has its highest F1 on
    the validation split."""


class Settings(Section):
    """Length limit and decision rule."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    head: ClassVar[str] = "classes"
    emits: ClassVar[str] = "labels"
    form: ClassVar[str] = "label_sets"
    measures: ClassVar[tuple[str, ...]] = ("accuracy", "f1")
    max_tokens: Positive = Field(examples=[24])
    """Longest text in tokens, the end-of-text token included; at most the model's context_length."""
    decide: Decide = Field(default=Decide(by="half"), examples=[{"by": "half"}, {"by": "f1"}])
    """The rule that decides which labels a text gets."""


def build(settings: Settings, context: TaskContext) -> "MultiLabel":
    """The task for the labels in the cells of `context`.

    Raises:
        UserError: no label, or max_tokens exceeds the context_length.
    """
    labels = label_cells.distinct_labels(context.labels)
    if not labels:
        raise UserError("data/samples/labelled/train.parquet: no record has a label; one or more are expected")
    require_room_for_text(settings.max_tokens, context)
    most = settings.max_tokens
    decided = None if settings.decide.by == "half" else settings.decide.by
    spec = TaskSpec(
        name="multi_label", labels=tuple(labels), decided_by=decided, max_tokens=most, max_prompt_tokens=most
    )
    return MultiLabel(spec, context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "MultiLabel":
    """The task of a trained model."""
    return MultiLabel(spec, tokenizer)


class MultiLabel(ScoringHead):
    """Binary cross-entropy of every label."""

    def __init__(self, spec: TaskSpec, tokenizer: Tokenizer) -> None:
        super().__init__(spec, tokenizer)
        self.labels = list(spec.labels or ())

    def target(self, record: Mapping[str, Any]) -> list[float] | Reason:
        """1 for every label of the record, 0 for the others."""
        indices = examples.label_indices(self.labels, record)
        if isinstance(indices, Reason):
            return indices
        return [float(place in indices) for place in range(len(self.labels))]

    def losses_of(self, predictions: Predictions) -> Tensor:
        """losses_B: the mean binary cross-entropy of the labels in nats, as transformers computes it."""
        return F.binary_cross_entropy_with_logits(
            predictions.scores_NC.float(), predictions.targets_N, reduction="none"
        ).mean(1)

    def decisions(self, scores_NC: Tensor) -> Tensor:
        """decisions_NC: 1 for a label with a probability of at least 0.5."""
        return (scores_NC >= 0).float()

    def with_decision(self, scores_NC: Tensor, targets_N: Tensor) -> TaskSpec:
        """The spec with the threshold of each label that has its highest F1."""
        if self.spec.decided_by is None:
            return self.spec
        chosen = thresholds.for_several_labels(scores_NC.double().sigmoid().numpy(), targets_N.double().numpy())
        return self.spec.model_copy(update={"thresholds": dict(zip(self.labels, chosen, strict=True))})

    def chosen(self, probabilities_NC: Tensor) -> Tensor:
        """chosen_NC: whether a label is answered, by its threshold; 0.5 without any."""
        limits = self.spec.thresholds or dict.fromkeys(self.labels, 0.5)
        return probabilities_NC >= torch.tensor([limits[label] for label in self.labels])

    def answers(self, scores_NC: Tensor) -> list[dict[str, Any]]:
        """`labels` of the text, and the `probabilities` of all."""
        probabilities_NC = scores_NC.sigmoid()
        chosen_NC = self.chosen(probabilities_NC)
        return [
            {
                "labels": [label for label, taken in zip(self.labels, picked, strict=True) if taken],
                "probabilities": dict(zip(self.labels, row, strict=True)),
            }
            for picked, row in zip(chosen_NC.tolist(), probabilities_NC.tolist(), strict=True)
        ]

    def shown(self, answer: Mapping[str, Any]) -> str:
        """The labels with their probabilities."""
        named = (f"{label} ({answer['probabilities'][label]:.3f})" for label in answer["labels"])
        return ", ".join(named) or "no label"
