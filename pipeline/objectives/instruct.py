"""Instruction tuning: next-token prediction on the answer alone (Wei et al. 2022; the mask as in Alpaca).

The prompt is read but not learned: its targets are IGNORED. An example that is too long for `max_tokens` loses the
middle of its prompt, never its answer.
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
    """Longest prompt and answer together; at most the model's context_length."""


def build(settings: Settings, context: Context) -> "Instruct":
    """The objective for one template. Raises UserError when max_tokens is over the context_length."""
    require_room(settings.max_tokens, context)
    return Instruct(settings, context)


class Instruct(Objective):
    def __init__(self, settings: Settings, context: Context) -> None:
        self.task: dict[str, Any] = {
            "objective": "instruct",
            "template": settings.template,
            "max_tokens": settings.max_tokens,
        }
        self._tokenizer = context.tokenizer
        self._settings = settings
        templates.prompt_ids(context.tokenizer, settings.template, "", "")  # the vocabulary must know the markers

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """A language model needs nothing more; a classifier's head, if it started from one, goes."""
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
        """Every token of the answers. Causal attention needs no padding mask here."""
        return predicted_tokens(model, batch)
