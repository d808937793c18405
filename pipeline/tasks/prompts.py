"""Prompts: records of which the prompt alone is asked; the answers are rollouts, drawn from the model while it trains.

The prompt is that of task `instruct`, which tohum.json names: the trained model is asked and answers as any that was
tuned on instructions. An example keeps its record, which a judge may compare an answer with.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch
from pipeline.prompts import examples as records
from pipeline.tasks import IGNORED, Answering, Reason, TaskContext, TaskSpec, answering_spec
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Prompt template and length limits."""

    reads: ClassVar[frozenset[str]] = frozenset({"instructions", "preferences"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "prompts"
    form: ClassVar[str] = "prompts"
    answers_as: ClassVar[str] = "instruct"
    template: Literal["chat", "alpaca", "model"] = Field(examples=["chat"])
    """As of `instruct`; a model that was tuned on instructions keeps its template."""
    max_tokens: Positive = Field(examples=[64])
    """Longest prompt with its answer in tokens; at most the model's context_length."""
    max_prompt_tokens: Positive = Field(examples=[40])
    """Longest prompt in tokens, in training and in use; a longer one is cut."""


class Prompt(NamedTuple):
    """The prompt of a record."""

    ids: list[int]
    targets: list[int]
    """IGNORED: nothing is learned from a prompt."""
    record: Mapping[str, Any]


def build(settings: Settings, context: TaskContext) -> "Prompts":
    """The task of these settings. Raises UserError for limits or a template that do not fit."""
    return Prompts(answering_spec("instruct", settings, context), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Prompts":
    """The task of a trained model."""
    return Prompts(spec, tokenizer)


class Prompts(Answering):
    """Prompts, and rollouts of them as (ids, targets)."""

    LEARNS_EARLIER = False

    def example(self, record: Mapping[str, Any]) -> Any:
        """The Prompt of a record, or the Reason why it has none."""
        ids = records.prompt_ids(self.tokenizer, self.spec, record)
        return ids if isinstance(ids, Reason) else Prompt(ids, [IGNORED] * len(ids), record)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """As of `Answering`, for rollouts and for prompts."""
        return super().collate([(example[0], example[1]) for example in examples])
