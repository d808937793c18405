"""Conversations of several turns: every answer is learned, every question and standing instruction only read.

The loss mask over every answer follows Touvron et al. 2023 (Llama 2, section 3.1: the loss of what the user says is
zeroed). A conversation that is too long loses its oldest turns, then the middle of its last question.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from pipeline.config.section import Positive, Section
from pipeline.data import templates
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.objectives import IGNORED, Batch, Context, Objective, Predictions, padded, predicted_tokens, require_room


class Settings(Section):
    template: Literal["chat", "alpaca"]
    max_tokens: Positive
    """Longest conversation; at most the model's context_length."""


def build(settings: Settings, context: Context) -> "Chat":
    """The objective for one template. Raises UserError when max_tokens is over the context_length."""
    require_room(settings.max_tokens, context)
    return Chat(settings, context)


class Chat(Objective):
    def __init__(self, settings: Settings, context: Context) -> None:
        self.task: dict[str, Any] = {"objective": "chat"} | settings.model_dump()
        self._tokenizer, self._settings = context.tokenizer, settings
        templates.prompt_ids(context.tokenizer, settings.template, "", "")  # the vocabulary must know the markers

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """A language model needs nothing more; a classifier's head, if it started from one, goes."""
        model.score = None

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], list[int]]:
        """Ids of the conversation, and as many targets' own ids with IGNORED where somebody else speaks."""
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
        learned = [i for prompt, answer in turns for i in [IGNORED] * len(prompt) + answer]
        return ids, learned

    def collate(self, examples: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """inputs_BT padded on the right, targets_BT IGNORED on all but the answers."""
        inputs = padded([ids[:-1] for ids, _ in examples], self._tokenizer.pad)
        return {"inputs": inputs, "targets": padded([learned[1:] for _, learned in examples], IGNORED)}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Every token of every answer."""
        return predicted_tokens(model, batch)
