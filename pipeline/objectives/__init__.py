"""WHAT is learned. Each file is one objective; this one holds what they share: the protocol and the batch.

Shapes: B examples, T positions, V vocabulary, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pipeline.model.gpt import GPT
from pipeline.tokenizer import Tokenizer

Batch = dict[str, Tensor]
IGNORED = -100
"""Target of a position that teaches nothing (torch's cross_entropy convention)."""


class Context(NamedTuple):
    """What an objective may know before it sees a record."""

    tokenizer: Tokenizer
    context_length: int
    labels: Sequence[str]
    """The distinct labels of the training split, sorted; empty where records have none."""


class Objective(Protocol):
    """One way of learning. Written once, it serves training, validation and every tuner."""

    task: dict[str, Any]
    """What the model must remember to be used: written into its folder as tohum.json."""

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """Adds what the objective needs to the model: a head, a frozen teacher; often nothing."""

    def example(self, record: Mapping[str, Any]) -> Any:
        """One record as token ids, ready to collate. Raises UserError on a record that cannot be learned from."""

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Examples as tensors, padded to the longest of the batch."""

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: one loss per example in nats, not reduced."""


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of different lengths as one int64 tensor [B, longest], filled on the right with `value`."""
    out = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return out


def answer_losses(model: GPT, batch: Batch) -> Tensor:
    """`token_losses` where most targets are IGNORED: only the positions that count pay for the language head."""
    targets_BT = batch["targets"]
    kept_BT = targets_BT != IGNORED
    logits_NV = model.logits(model.hidden(batch["inputs"])[kept_BT])
    losses_N = nn.functional.cross_entropy(logits_NV.float(), targets_BT[kept_BT], reduction="none")
    rows_N = torch.nonzero(kept_BT)[:, 0]
    sums_B = losses_N.new_zeros(len(targets_BT)).index_add(0, rows_N, losses_N)
    return sums_B / kept_BT.sum(1).clamp(min=1)


def token_losses(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """losses_B: mean cross-entropy in nats over the positions of each example whose target is not IGNORED."""
    losses_BT = nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(targets_BT)
    counts_B = (targets_BT != IGNORED).sum(1).clamp(min=1)
    return losses_BT.sum(1) / counts_B
