"""Preferences: two answers to one prompt, the chosen and the rejected one, for losses that compare them (dpo).

A batch has 2B rows, the B chosen answers first. Prompts and answers are those of task `instruct`, which tohum.json
names: the trained model is asked and answers as any that was tuned on instructions. The task's own loss, by which no
such recipe is trained, is that of `instruct` on the chosen answers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch
from pipeline.prompts import examples
from pipeline.tasks import Paired, Reason, TaskContext, TaskSpec, answering_spec, with_targets
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Prompt template and length limits."""

    reads: ClassVar[frozenset[str]] = frozenset({"preferences"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "pairs"
    form: ClassVar[str] = "pairs"
    answers_as: ClassVar[str] = "instruct"
    template: Literal["chat", "alpaca", "model"] = Field(examples=["chat", "alpaca"])
    """As of `instruct`; a model that was tuned on instructions keeps its template."""
    max_tokens: Positive = Field(examples=[64])
    """Longest prompt with its answer in tokens; at most the model's context_length."""
    max_prompt_tokens: Positive = Field(examples=[54])
    """Longest prompt in tokens, in training and in use; a longer one is cut."""


def build(settings: Settings, context: TaskContext) -> "Preference":
    """The task of these settings. Raises UserError for limits or a template that do not fit."""
    return Preference(answering_spec("instruct", settings, context), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Preference":
    """The task of a trained model."""
    return Preference(spec, tokenizer)


class Preference(Paired):
    """Pairs of answers."""

    def example(self, record: Mapping[str, Any]) -> Any:
        """(ids, targets) of the chosen and of the rejected answer, as `Answering.example` gives them."""
        pair = examples.pair_example(self.tokenizer, self.spec, record)
        return pair if isinstance(pair, Reason) else [with_targets(answer) for answer in pair]

    def n_examples(self, batch: Batch) -> int:
        """Number of pairs."""
        return len(batch["inputs"]) // 2
