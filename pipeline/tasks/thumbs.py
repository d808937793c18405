"""Thumbs: answers that people liked or not, each by itself, for losses that need no pairs (kto).

Ratings of form thumb give one answer a record, preferences two: the chosen one up, the rejected one down. A batch has
S = K B rows, K = 1 or 2, the first answers before the second ones; `good` tells which are liked. Prompts and answers
are those of task `instruct`, which tohum.json names. The task's own loss, by which no such recipe is trained, is that
of `instruct` on each record's first answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.contracts import Batch
from pipeline.prompts import examples
from pipeline.tasks import Paired, Reason, TaskContext, TaskSpec, answering_spec, with_targets
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Prompt template and length limits."""

    reads: ClassVar[frozenset[str]] = frozenset({"ratings", "preferences"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "thumbs"
    form: ClassVar[str] = "thumbs"
    answers_as: ClassVar[str] = "instruct"
    template: Literal["chat", "alpaca", "model"] = Field(examples=["chat", "alpaca"])
    """As of `instruct`; a model that was tuned on instructions keeps its template."""
    max_tokens: Positive = Field(examples=[64])
    """Longest prompt with its answer in tokens; at most the model's context_length."""
    max_prompt_tokens: Positive = Field(examples=[54])
    """Longest prompt in tokens, in training and in use; a longer one is cut."""


def build(settings: Settings, context: TaskContext) -> "Thumbs":
    """The task of these settings. Raises UserError for limits or a template that do not fit."""
    return Thumbs(answering_spec("instruct", settings, context), context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Thumbs":
    """The task of a trained model."""
    return Thumbs(spec, tokenizer)


class Thumbs(Paired):
    """Answers with a thumb up or down."""

    def example(self, record: Mapping[str, Any]) -> Any:
        """[(ids, targets), ...] of the record's one or two answers, and whether each is liked."""
        judged = examples.thumb_examples(self.tokenizer, self.spec, record)
        if isinstance(judged, Reason):
            return judged
        return [with_targets(one.example) for one in judged], [one.good for one in judged]

    def collate(self, examples: Sequence[Any]) -> Batch:
        """inputs_ST, targets_ST and good_KB: all examples are of one record kind, so each has K answers, S = K B."""
        good = [[goods[place] for _, goods in examples] for place in range(len(examples[0][1]))]
        return super().collate([rows for rows, _ in examples]) | {"good": torch.tensor(good)}

    def n_examples(self, batch: Batch) -> int:
        """Number of records."""
        return batch["good"].shape[1]
