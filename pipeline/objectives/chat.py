"""Chat fine-tuning: next-token loss on every answer of a conversation, with all other turns masked out of the loss.

Loss mask: Touvron et al. 2023 (Llama 2), section 3.1, zeroes the loss on the user's tokens. A conversation longer than
`max_tokens` loses its oldest turns, then the middle of its last question.
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
    """Chat template and length limit."""

    template: Literal["chat", "alpaca"] = Field(examples=["chat", "alpaca"])
    """chat: special tokens mark the turns; alpaca: plain headings."""
    max_tokens: Positive = Field(examples=[64])
    """Longest conversation in tokens; at most the model's context_length."""


def build(settings: Settings, context: ObjectiveContext) -> "Chat":
    """The objective of these settings. Raises UserError if max_tokens exceeds the context_length."""
    require_room(settings.max_tokens, context)
    return Chat(settings, context)


class Chat(Objective):
    """Next-token prediction on answers."""

    def __init__(self, settings: Settings, context: ObjectiveContext) -> None:
        self.task: dict[str, Any] = {"objective": "chat"} | settings.model_dump()
        self._tokenizer, self._settings = context.tokenizer, settings
        # raises UserError if the vocabulary lacks the template's special tokens
        templates.prompt_ids(context.tokenizer, settings.template, "", "")

    def prepare(self, model: GPT, _generator: torch.Generator) -> None:
        """Removes the classification head of a start model that has one."""
        model.score = None

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Ids of the conversation, and as many targets: the same ids in answers, IGNORED elsewhere."""
        limit = self._settings.max_tokens
        turns = templates.turns(
            self._tokenizer, self._settings.template, record["instruction"], record["input"], record["output"]
        )
        while len(turns) > 1 and sum(len(prompt) + len(answer) for prompt, answer in turns) > limit:
            turns = turns[1:]
        prompt, answer = turns[-1]
        room = limit - len(answer)
        if room < 16:
            raise UserError(
                f"{record['origin']}: its last answer has {len(answer)} tokens, objective.max_tokens is {limit}; "
                "raise max_tokens or leave the record out"
            )
        if len(turns) == 1 and len(prompt) > room:
            turns = [(prompt[: room // 2] + prompt[len(prompt) - (room - room // 2) :], answer)]
        ids = [i for prompt, answer in turns for i in prompt + answer]
        targets = [i for prompt, answer in turns for i in [IGNORED] * len(prompt) + answer]
        return ids, targets

    def collate(self, examples: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """inputs_BT padded on the right, targets_BT IGNORED outside of answers."""
        inputs = padded([ids[:-1] for ids, _ in examples], self._tokenizer.pad)
        return {"inputs": inputs, "targets": padded([targets[1:] for _, targets in examples], IGNORED)}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The tokens of every answer."""
        return predicted_tokens(model, batch)
