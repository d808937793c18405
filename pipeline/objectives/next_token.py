"""Next-token prediction on packed windows: the objective of pretraining (Radford et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.config import Section
from pipeline.model.gpt import GPT
from pipeline.objectives import Batch, Context, Objective, Predictions


class Settings(Section):
    """Nothing to set: the window is the model's context_length."""


def build(settings: Settings, context: Context) -> "NextToken":
    """The objective for windows of context_length + 1 ids."""
    return NextToken()


class NextToken(Objective):
    def __init__(self) -> None:
        self.task: dict[str, Any] = {"objective": "next_token"}

    def prepare(self, model: GPT, generator: torch.Generator) -> None:
        """A language model needs nothing more; a classifier's head, if it started from one, goes."""
        model.score = None

    def example(self, record: Mapping[str, Any]) -> np.ndarray:
        """`record["ids"]`: a window of T + 1 token ids."""
        return record["ids"]

    def collate(self, examples: Sequence[np.ndarray]) -> Batch:
        """inputs_BT and targets_BT, the targets one position ahead."""
        ids = torch.from_numpy(np.stack(examples).astype(np.int64))
        return {"inputs": ids[:, :-1], "targets": ids[:, 1:]}

    def predictions(self, model: GPT, batch: Batch) -> Predictions:
        """Every next token."""
        B, T = batch["targets"].shape
        rows_N = torch.arange(B, device=batch["targets"].device).repeat_interleave(T)
        return Predictions(model(batch["inputs"]).flatten(0, 1), batch["targets"].flatten(), rows_N, B)
