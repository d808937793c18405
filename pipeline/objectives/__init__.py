"""WHAT is learned. Each file is one objective; this one holds what they share: the protocol and the batch.

Shapes: B examples, T positions, V vocabulary, C classes.
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
    "Context",
    "Objective",
    "Predictions",
    "padded",
    "per_example",
    "predicted_tokens",
    "require_room",
    "token_losses",
]

IGNORED = -100
"""Target of a position that teaches nothing (torch's cross_entropy convention)."""


class Context(NamedTuple):
    """What an objective may know before it sees a record."""

    tokenizer: Tokenizer
    context_length: int
    labels: Sequence[str]
    """The distinct labels of the training split, sorted; empty where records have none."""


class Objective(ABC):
    """One way of learning. Written once, it serves training, validation, every tuner and every auxiliary loss."""

    task: dict[str, Any]
    """What the model must remember to be used: written into its folder as tohum.json."""

    @abstractmethod
    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """Adds what the objective needs to the model: a head; often nothing."""

    @abstractmethod
    def example(self, record: Mapping[str, Any]) -> Any:
        """One record as token ids, ready to collate. Raises UserError on a record that cannot be learned from."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """Examples as tensors, padded to the longest of the batch."""

    @abstractmethod
    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """The model's scores at every place that counts, beside the truth."""

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: mean cross-entropy in nats over the places of each example; 0 for one without any."""
        found = self.predictions(model, batch)
        return per_example(token_losses(found.scores_NC, found.targets_N), found)


def token_losses(scores_NC: Tensor, targets_N: Tensor) -> Tensor:
    """losses_N: cross-entropy in nats, float32 whatever the scores are."""
    return nn.functional.cross_entropy(scores_NC.float(), targets_N, reduction="none")


def require_room(max_tokens: int, context: Context) -> None:
    """Raises UserError when examples of so many tokens do not fit into the model's context."""
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
    """The next token wherever `targets` does not say IGNORED; only those places pay for the language head."""
    kept_BT = batch["targets"] != IGNORED
    rows_N = torch.nonzero(kept_BT)[:, 0]
    hidden_ND = model.hidden(batch["inputs"], wanted_BT=kept_BT)
    return Predictions(model.logits(hidden_ND), batch["targets"][kept_BT], rows_N, len(kept_BT))
