"""Classification: a linear head on the last token of the text (Radford et al. 2018, section 3.2).

The head is transformers' `score`, so the trained folder loads as <Family>ForSequenceClassification. Every text ends
with the end-of-text token, whose hidden state the head reads. Texts longer than `max_tokens` lose their middle.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.objectives import Batch, Objective, ObjectiveContext, Predictions, padded, require_room


class Settings(Section):
    """Length limit."""

    scores: ClassVar[bool] = True
    """Not a setting: the objective adds a classification head, which not every family has."""
    max_tokens: Positive = Field(examples=[24])
    """Longest text in tokens, the end-of-text token included; at most the model's context_length."""


def build(settings: Settings, context: ObjectiveContext) -> "Classify":
    """The objective for the labels of `context`.

    Raises:
        UserError: fewer than two labels, or max_tokens exceeds the context_length.
    """
    if len(context.labels) < 2:
        labels = ", ".join(context.labels) or "none"
        raise UserError(f"data/samples/labelled/train.parquet: labels found: {labels}; two or more are expected")
    require_room(settings.max_tokens, context)
    return Classify(settings, context)


class Classify(Objective):
    """Cross-entropy over the labels of the training split."""

    def __init__(self, settings: Settings, context: ObjectiveContext) -> None:
        self.labels = list(context.labels)
        self.task: dict[str, Any] = {
            "objective": "classify",
            "labels": self.labels,
            "max_tokens": settings.max_tokens,
        }
        self._tokenizer = context.tokenizer
        self._max_tokens = settings.max_tokens
        self._index = {label: i for i, label in enumerate(self.labels)}

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """Adds a new `score` head unless the model already has one of as many classes."""
        if model.score is None or model.score.out_features != len(self.labels):
            model.add_score(len(self.labels), generator)

    def example(self, record: Mapping[str, Any]) -> tuple[list[int], int]:
        """Ids of the text with its end-of-text token, and the class index."""
        if record["label"] not in self._index:
            raise UserError(
                f"{record['origin']}: label {record['label']!r} is not among the labels of the training split: "
                f"{', '.join(self.labels)}"
            )
        return encode(self._tokenizer, record["text"], self._max_tokens), self._index[record["label"]]

    def collate(self, examples: Sequence[tuple[list[int], int]]) -> Batch:
        """inputs_BT padded on the right, the attention mask `mask` [B, T] (true on tokens), targets_B."""
        rows = [ids for ids, _ in examples]
        lengths = torch.tensor([len(row) for row in rows])
        inputs = padded(rows, self._tokenizer.pad)
        mask = torch.arange(inputs.shape[1])[None] < lengths[:, None]
        return {"inputs": inputs, "mask": mask, "targets": torch.tensor([target for _, target in examples])}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The class scores of every text."""
        scores_BC = model.classify(batch["inputs"], batch["mask"])
        rows_B = torch.arange(len(scores_BC), device=scores_BC.device)
        return Predictions(scores_BC, batch["targets"], rows_B, len(scores_BC))


def encode(tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    """Ids of a text with the end-of-text token, without its middle if it is longer than `max_tokens`."""
    ids = tokenizer.encode(text)
    if len(ids) >= max_tokens:
        head = (max_tokens - 1) // 2
        ids = ids[:head] + ids[len(ids) - (max_tokens - 1 - head) :]
    return [*ids, tokenizer.end_of_text]
