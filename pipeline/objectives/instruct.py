"""Instruction tuning: next-token loss on the answer only (Wei et al. 2022; loss mask as in Alpaca).

The prompt is masked out of the loss: its targets are IGNORED. An example longer than `max_tokens` loses the middle of
its prompt, never a part of its answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.data import templates
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.objectives import (
    IGNORED,
    Batch,
    Objective,
    ObjectiveContext,
    Predictions,
    padded,
    predicted_tokens,
    require_room,
)


class Settings(Section):
    """Prompt template and length limit."""

    template: Literal["chat", "alpaca"] = Field(examples=["chat", "alpaca"])
    """chat: special tokens mark the turns; alpaca: plain headings."""
    max_tokens: Positive = Field(examples=[64])
    """Longest prompt with its answer in tokens; at most the model's context_length."""


def build(settings: Settings, context: ObjectiveContext) -> "Instruct":
    """The objective of these settings. Raises UserError if max_tokens exceeds the context_length."""
    require_room(settings.max_tokens, context)
    return Instruct(settings, context)


class Instruct(Objective):
    """Next-token prediction on answers."""

    def __init__(self, settings: Settings, context: ObjectiveContext) -> None:
        self.task: dict[str, Any] = {
            "objective": "instruct",
            "template": settings.template,
            "max_tokens": settings.max_tokens,
        }
        self._tokenizer = context.tokenizer
        self._settings = settings
        # raises UserError if the vocabulary lacks the template's special tokens
        templates.prompt_ids(context.tokenizer, settings.template, "", "")

    def prepare(self, model: GPT, _generator: torch.Generator) -> None:
        """Removes the classification head of a start model that has one."""
        model.score = None

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], int]:
        """Ids of prompt and answer, and the length of the prompt."""
        template, limit = self._settings.template, self._settings.max_tokens
        prompt = templates.prompt_ids(self._tokenizer, template, record["instruction"], record["input"])
        answer = templates.answer_ids(self._tokenizer, template, record["output"])
        room = limit - len(answer)
        if room < 16:
            raise UserError(
                f"{record['origin']}: its answer has {len(answer)} tokens, objective.max_tokens is {limit}; "
                "raise max_tokens or leave the record out"
            )
        if len(prompt) > room:
            head = room // 2
            prompt = prompt[:head] + prompt[len(prompt) - (room - head) :]
        return prompt + answer, len(prompt)

    def collate(self, examples: Sequence[tuple[list[int], int]]) -> Batch:
        """inputs_BT padded on the right, targets_BT IGNORED on prompt and padding."""
        inputs = padded([ids[:-1] for ids, _ in examples], self._tokenizer.pad)
        targets = padded([[IGNORED] * (n - 1) + ids[n:] for ids, n in examples], IGNORED)
        return {"inputs": inputs, "targets": targets}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The tokens of every answer. Padding is on the right, so causal attention needs no padding mask."""
        return predicted_tokens(model, batch)
