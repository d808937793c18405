"""Next-token prediction on packed windows: the objective of pretraining (Radford et al. 2019)."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipeline.config.section import Positive, Section
from pipeline.model.gpt import GPT
from pipeline.objectives import Batch, Context, Objective, Predictions, per_example, token_losses


class Settings(Section):
    """The window is the model's context_length."""

    mask_documents: bool
    """Whether a token sees its own document alone, not what happens to stand before it in its window; a document begins
    with the end-of-text token before it, as a text to go on with does."""
    logits_at_once: Positive | None
    """Positions whose logits are held at once, made again for their gradient: less memory, a slower step; null: all."""


def build(settings: Settings, context: Context) -> "NextToken":
    """The objective for windows of context_length + 1 ids."""
    return NextToken(settings, context.tokenizer.end_of_text)


def head_losses(model: GPT, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """losses_N of the language head at these places of the stream."""
    return token_losses(model.logits(hidden_ND), targets_N)


def _fuses(model: GPT) -> bool:
    """Whether head and loss are compiled into one: on a GPU they would else write the logits several times over."""
    return model.fixed and model.embed.weight.device.type == "cuda"


@cache
def _fused() -> Callable[[GPT, Tensor, Tensor], Tensor]:
    return torch.compile(head_losses)


class NextToken(Objective):
    def __init__(self, settings: Settings, end_of_text: int) -> None:
        self.task: dict[str, Any] = {"objective": "next_token"}
        self.settings, self._end_of_text = settings, end_of_text

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """A language model needs nothing more; a classifier's head, if it started from one, goes."""
        model.score = None

    def example(self, record: Mapping[str, Any]) -> np.ndarray:
        """`record["ids"]`: a window of T + 1 token ids."""
        return record["ids"]

    def collate(self, examples: Sequence[np.ndarray]) -> Batch:
        """inputs_BT and targets_BT, the targets one position ahead; segments_BT, which document, if they are masked."""
        ids = torch.from_numpy(np.stack(examples).astype(np.int64))
        batch = {"inputs": ids[:, :-1], "targets": ids[:, 1:]}
        if self.settings.mask_documents:
            batch["segments"] = (batch["inputs"] == self._end_of_text).cumsum(1)
        return batch

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Every next token."""
        return self._places(model.logits(self._hidden(model, batch).flatten(0, 1)), batch)

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """As for every objective; the logits of a part of the positions at a time, if so set."""
        losses_of = _fused() if _fuses(model) else head_losses
        hidden_ND, targets_N = self._hidden(model, batch).flatten(0, 1), batch["targets"].flatten()
        size = self.settings.logits_at_once
        if size is None:
            losses_N = losses_of(model, hidden_ND, targets_N)
        else:
            pieces = zip(hidden_ND.split(size), targets_N.split(size), strict=True)
            losses_N = torch.cat(
                [
                    checkpoint(losses_of, model, *piece, use_reentrant=False, preserve_rng_state=False)
                    for piece in pieces
                ]
            )
        return per_example(losses_N, self._places(torch.empty(0), batch))

    @staticmethod
    def _hidden(model: GPT, batch: Batch) -> Tensor:
        return model.hidden(batch["inputs"], segments_BT=batch.get("segments"))

    @staticmethod
    def _places(scores_NV: Tensor, batch: Batch) -> Predictions:
        B, T = batch["targets"].shape
        rows_N = torch.arange(B, device=batch["targets"].device).repeat_interleave(T)
        return Predictions(scores_NV, batch["targets"].flatten(), rows_N, B)
