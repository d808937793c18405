"""Classification: a linear head on the last token of the text (Radford et al. 2018, section 3.2).

The head is transformers' `score`, so the trained folder loads as <Family>ForSequenceClassification. Every text ends
with the end-of-text token, whose hidden state the head reads. Texts longer than `max_tokens` lose their middle.
"""

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.prompts.vocabulary import without_middle
from pipeline.tasks import Labelling, Request, TaskContext, TaskSpec, require_room
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Length limit."""

    reads: ClassVar[frozenset[str]] = frozenset({"labelled"})
    head: ClassVar[str] = "classes"
    emits: ClassVar[str] = "classes"
    form: ClassVar[str] = "labels"
    max_tokens: Positive = Field(examples=[24])
    """Longest text in tokens, the end-of-text token included; at most the model's context_length."""


def build(settings: Settings, context: TaskContext) -> "Classify":
    """The task for the labels of `context`.

    Raises:
        UserError: fewer than two labels, or max_tokens exceeds the context_length.
    """
    if len(context.labels) < 2:
        labels = ", ".join(context.labels) or "none"
        raise UserError(f"data/samples/labelled/train.parquet: labels found: {labels}; two or more are expected")
    require_room(settings.max_tokens, context)
    most = settings.max_tokens
    spec = TaskSpec(name="classify", labels=tuple(context.labels), max_tokens=most, max_prompt_tokens=most)
    return Classify(spec, context.tokenizer)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "Classify":
    """The task of a trained model."""
    return Classify(spec, tokenizer)


class Classify(Labelling):
    """Cross-entropy over the labels of the training split."""

    def prompt(self, request: Request) -> list[int]:
        """Ids of the text between the vocabulary's own tokens ([CLS], [SEP]); without any after it, end-of-text."""
        assert self.spec.max_tokens is not None
        before, after = self.tokenizer.text_prefix, self.tokenizer.text_suffix or (self.tokenizer.end_of_text,)
        ids = without_middle(self.tokenizer.encode(request.text), self.spec.max_tokens - len(before) - len(after))
        return [*before, *ids, *after]

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """Adds a new `score` head unless the model already has one of as many classes."""
        if model.score is None or model.score.out_features != len(self.labels):
            model.add_score(len(self.labels), generator)

    def class_scores(self, model: GPT, inputs_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """scores_BC of the classification head."""
        return model.classify(inputs_BT, torch.arange(inputs_BT.shape[1], device=inputs_BT.device) < lengths_B[:, None])
