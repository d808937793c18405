"""Next-token prediction on packed windows of documents, the task of pretraining (Radford et al. 2019)."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipeline.config.section import Positive, Section
from pipeline.model.gpt import GPT
from pipeline.tasks import Batch, Predictions, Request, Task, TaskContext, TaskSpec, per_example, token_losses
from pipeline.tokenizer import Tokenizer


class Settings(Section):
    """Document mask and memory; the window is the model's context_length."""

    reads: ClassVar[frozenset[str]] = frozenset({"documents"})
    head: ClassVar[str] = "language"
    emits: ClassVar[str] = "tokens"
    mask_documents: bool = Field(examples=[False, True])
    """Whether attention is limited to a token's own document in its window (document mask). A document begins with the
    end-of-text token before it, as a prompt does."""
    logits_at_once: Positive | None = Field(examples=[None, 5])
    """Positions whose logits are in memory at once, recomputed in the backward pass: less memory, slower; null: all."""


def build(settings: Settings, context: TaskContext) -> "NextToken":
    """The task for windows of context_length + 1 ids."""
    return NextToken(TaskSpec(name="next_token"), context.tokenizer, settings)


def of(spec: TaskSpec, tokenizer: Tokenizer) -> "NextToken":
    """The task of a trained model."""
    return NextToken(spec, tokenizer, Settings(mask_documents=False, logits_at_once=None))


def head_losses(model: GPT, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
    """losses_N of the language head at N positions."""
    return token_losses(model.logits(hidden_ND), targets_N)


def _fuses(model: GPT) -> bool:
    """Whether head and loss are compiled together: uncompiled, a GPU writes the logits to memory several times."""
    return model.static_shapes and model.embed.weight.device.type == "cuda"


@cache
def _fused() -> Callable[[GPT, Tensor, Tensor], Tensor]:
    return torch.compile(head_losses)


class NextToken(Task):
    """Next-token prediction at every position."""

    def __init__(self, spec: TaskSpec, tokenizer: Tokenizer, settings: Settings) -> None:
        super().__init__(spec, tokenizer)
        self.settings = settings

    def prompt(self, request: Request) -> list[int]:
        """Ids of the text to continue after an end-of-text token; a long text loses its beginning."""
        assert self.spec.max_prompt_tokens is not None
        ids = self.tokenizer.encode(request.text)
        return [self.tokenizer.end_of_text, *ids[max(0, len(ids) - self.spec.max_prompt_tokens + 1) :]]

    def example(self, record: Mapping[str, Any]) -> np.ndarray:
        """`record["ids"]`: a window of T + 1 token ids."""
        ids: np.ndarray = record["ids"]
        return ids

    def collate(self, examples: Sequence[np.ndarray]) -> Batch:
        """inputs_BT and targets_BT, one position ahead; with the document mask segments_BT, document indices, too."""
        ids = torch.from_numpy(np.stack(examples).astype(np.int64))
        batch = {"inputs": ids[:, :-1], "targets": ids[:, 1:]}
        if self.settings.mask_documents:
            batch["segments"] = (batch["inputs"] == self.tokenizer.end_of_text).cumsum(1)
        return batch

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Every next token."""
        return self._predictions(model.logits(self._hidden(model, batch).flatten(0, 1)), batch)

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B as of every task; with `logits_at_once` over some of the positions at a time."""
        losses_of = _fused() if _fuses(model) else head_losses
        hidden_ND, targets_N = self._hidden(model, batch).flatten(0, 1), batch["targets"].flatten()
        size = self.settings.logits_at_once
        if size is None:
            losses_N = losses_of(model, hidden_ND, targets_N)
        else:
            pieces = zip(torch.split(hidden_ND, size), torch.split(targets_N, size), strict=True)
            losses_N = torch.cat(
                [
                    checkpoint(losses_of, model, *piece, use_reentrant=False, preserve_rng_state=False)
                    for piece in pieces
                ]
            )
        return per_example(losses_N, self._predictions(torch.empty(0), batch))

    @staticmethod
    def _hidden(model: GPT, batch: Batch) -> Tensor:
        return model.hidden(batch["inputs"], segments_BT=batch.get("segments"))

    @staticmethod
    def _predictions(scores_NV: Tensor, batch: Batch) -> Predictions:
        B, T = batch["targets"].shape
        rows_N = torch.arange(B, device=batch["targets"].device).repeat_interleave(T)
        return Predictions(scores_NV, batch["targets"].flatten(), rows_N, B)
