"""Classification: a linear head on the last token of the text (Radford et al. 2018, section 3.2).

The head is transformers' `score`, so the trained folder loads as <Family>ForSequenceClassification. Every text ends
with the end-of-text token, whose hidden state the head reads. Texts longer than `max_tokens` lose their middle.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.tasks import Labelling, ScoringHead, TaskContext, TaskSpec, require_room_for_text
from pipeline.tokenizer import Tokenizer


class Decide(Section):
    """The rule that decides the label from the probabilities; its thresholds are chosen on the validation split."""

    by: Literal["argmax", "f1", "cost"]
    """argmax: the likeliest label; f1: thresholds with the highest macro-averaged F1, for rare labels; cost: thresholds
    with the lowest mean cost."""
    costs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] | None = None
    """By cost: true label -> answered label -> cost of that answer; pairs that are not named cost nothing."""

    @model_validator(mode="after")
    def _has_costs_to_weigh(self) -> "Decide":
        if (self.by == "cost") != bool(self.costs):
            raise ValueError(f"by is {self.by} and costs {self.costs}; costs go with by: cost, and only with it")
        if wrong := [label for label, row in (self.costs or {}).items() if label in row]:
            raise ValueError(f"costs.{wrong[0]} names {wrong[0]}, a right answer, which costs nothing; remove it")
        return self


class Settings(Section):
    """Length limit and decision rule."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    head: ClassVar[str] = "classes"
    emits: ClassVar[str] = "classes"
    form: ClassVar[str] = "labels"
    measures: ClassVar[tuple[str, ...]] = ("accuracy", "f1")
    max_tokens: Positive = Field(examples=[24])
    """Longest text in tokens, the end-of-text token included; at most the model's context_length."""
    decide: Decide = Field(
        default=Decide(by="argmax"),
        examples=[
            {"by": "argmax"},
            {"by": "f1"},
            {"by": "cost", "costs": {"ham": {"spam": 5.0}, "spam": {"ham": 1.0}}},
        ],
    )
    """The rule that decides the label from the probabilities."""


def build(settings: Settings, context: TaskContext) -> "Classify":
    """The task for the labels of `context`.

    Raises:
        UserError: fewer than two labels, max_tokens exceeds the context_length, or costs of unknown labels.
    """
    if len(context.labels) < 2:
        labels = ", ".join(context.labels) or "none"
        raise UserError(f"data/samples/labelled/train.parquet: labels found: {labels}; two or more are expected")
    require_room_for_text(settings.max_tokens, context)
    costs = settings.decide.costs or {}
    if unknown := sorted({*costs, *(label for row in costs.values() for label in row)} - set(context.labels)):
        raise UserError(
            f"{context.where}.decide.costs names {', '.join(unknown)}; the labels of the data are "
            f"{', '.join(context.labels)}"
        )
    most = settings.max_tokens
    spec = TaskSpec(
        name="classify", labels=tuple(context.labels), max_tokens=most, max_prompt_tokens=most,
        decided_by=None if settings.decide.by == "argmax" else settings.decide.by, costs=settings.decide.costs,
    )  # fmt: skip
    return Classify(spec, context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Classify":
    """The task of a trained model."""
    return Classify(spec, tokenizer)


class Classify(ScoringHead, Labelling):
    """Cross-entropy over the labels of the training split."""
