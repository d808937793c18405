"""Objectives: training examples and their loss. Each file is one: `build(settings, context) -> Objective`.

This file holds the base class and the functions that objectives share.

Shapes: B examples, T positions, N predicted positions of a batch, D model width, V vocabulary, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.contracts import Batch, Predictions, per_example
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.tokenizer import Tokenizer

__all__ = [
    "IGNORED",
    "Batch",
    "Objective",
    "ObjectiveContext",
    "Predictions",
    "padded",
    "per_example",
    "predicted_tokens",
    "require_room",
    "token_losses",
]

IGNORED = -100
"""Target of a position without loss (`ignore_index` of torch's cross_entropy)."""


class ObjectiveContext(NamedTuple):
    """Everything an objective is built from besides its settings."""

    tokenizer: Tokenizer
    context_length: int
    """Of the model, in tokens."""
    labels: Sequence[str]
    """The distinct labels of the training split, sorted; empty if records have none."""


class Objective(ABC):
    """Base class: makes examples of records and computes their loss, for training, validation and auxiliary losses."""

    task: dict[str, Any]
    """Everything needed to use the trained model (labels, template, limits): written to its folder as tohum.json."""

    @abstractmethod
    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """Adds the head that the objective needs, or removes another; all randomness comes from `generator`."""

    @abstractmethod
    def example(self, record: Mapping[str, Any]) -> Any:
        """One record as token ids, ready to collate. Raises UserError on a record that makes no example."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """Examples as tensors, padded to the longest of the batch."""

    @abstractmethod
    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Scores and targets at every position that enters the loss."""

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: mean cross-entropy in nats over each example's positions; 0 for an example without any."""
        predictions = self.predictions(model, batch)
        return per_example(token_losses(predictions.scores_NC, predictions.targets_N), predictions)


def token_losses(scores_NC: Tensor, targets_N: Tensor) -> Tensor:
    """losses_N: cross-entropy in nats, float32 for scores of any precision."""
    return nn.functional.cross_entropy(scores_NC.float(), targets_N, reduction="none")


def require_room(max_tokens: int, context: ObjectiveContext) -> None:
    """Raises UserError if `max_tokens` exceeds the model's context_length."""
    if max_tokens > context.context_length:
        raise UserError(
            f"params.yaml: objective.max_tokens is {max_tokens}, the model's context_length is "
            f"{context.context_length}; lower max_tokens"
        )


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of different lengths as one int64 tensor [B, longest], filled on the right with `value`."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)


def predicted_tokens(model: GPT, batch: Batch) -> Predictions:
    """Next-token scores at the positions whose target is not IGNORED; the language head runs on these only."""
    kept_BT = batch["targets"] != IGNORED
    rows_N = torch.nonzero(kept_BT)[:, 0]
    hidden_ND = model.hidden(batch["inputs"], wanted_BT=kept_BT)
    return Predictions(model.logits(hidden_ND), batch["targets"][kept_BT], rows_N, len(kept_BT))
