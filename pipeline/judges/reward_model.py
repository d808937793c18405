"""A reward model: the output of a model of task `reward` at the end of prompt and answer.

It reads the ids of prompt and answer as they were drawn, so its vocabulary and prompt template must be those of the
trained model. An answer that did not end by the stop id is scored as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from pipeline import foreign
from pipeline.config.recipe import Compute
from pipeline.config.section import Section
from pipeline.errors import UserError
from pipeline.judges import Context, Judge, Judged
from pipeline.model import checkpoint
from pipeline.model.device import autocast
from pipeline.model.gpt import GPT
from pipeline.prompts import spec as specs
from pipeline.tasks import padded
from pipeline.tokenizer import Tokenizer

_ROWS = 32  # computed together: only the number
_PROBE = "Ğüzel: a question? 0123456789 and its answer."


class Settings(Section):
    """The model."""

    source_of: ClassVar[str] = "model"
    reads: str = Field(examples=["models/reward"])
    """models/ and a recipe with task reward, or a model folder below inputs/."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(examples=[None])
    """SHA-256 of the files of a folder below inputs/ (an error names the one found); null for a model of the graph."""


def build(settings: Settings, context: Context) -> "RewardModel":
    """The judge, frozen, on the device of training.

    Raises:
        UserError: a folder that differs from its pin, a model that gives no reward, or one that reads other ids or
            another prompt template than the trained model.
    """
    folder, where = Path(settings.reads), f"params.yaml: {context.where}.reads is {settings.reads!r}"
    if settings.sha256 is not None and (found := foreign.pin(foreign.hashes(folder))) != settings.sha256:
        raise UserError(f"{where}, whose files have SHA-256 {found}; write it as sha256 if that is the model you mean")
    model = checkpoint.load(folder, context.compute.device)
    if model.score is None or model.score.out_features != 1:
        raise UserError(f"{where}, which has no single reward; name a model that was trained with task reward")
    theirs, ours = specs.read(folder)[0], context.task.spec
    if theirs.template is not None and theirs.template != ours.template:
        raise UserError(
            f"{where}, which reads prompts of template {theirs.template!r}, and the recipe's task has "
            f"{ours.template!r}; train both with one template"
        )
    if _ids(Tokenizer.load(folder)) != _ids(context.tokenizer):
        raise UserError(
            f"{where}, which has another vocabulary than the trained model; name one that was tuned from the same base"
        )
    return RewardModel(model.requires_grad_(False).eval(), context.tokenizer.pad, context.compute)


def _ids(tokenizer: Tokenizer) -> tuple[int, list[int], int]:
    """Size, a text in ids and the end: two vocabularies with equal ones are taken for the same."""
    return tokenizer.vocab_size, tokenizer.encode(_PROBE), tokenizer.end_of_text


class RewardModel(Judge):
    """The rewards that a model gives."""

    def __init__(self, model: GPT, pad: int, compute: Compute) -> None:
        self.model = model
        """Frozen; a value model may begin as a copy of it."""
        self._pad, self._compute = pad, compute

    @torch.no_grad()
    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """scores_E; of a text that is longer than the model's context its end is read."""
        room, device = self.model.room(), self.model.embed.weight.device
        rows = [[*one.prompt, *one.answer][-room:] for one in judged]
        scores_E = torch.zeros(len(rows))
        by_length = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for first in range(0, len(rows), _ROWS):
            chosen = by_length[first : first + _ROWS]
            lengths_B = torch.tensor([len(rows[row]) for row in chosen])
            ids_BT = padded([rows[row] for row in chosen], self._pad)
            mask_BT = torch.arange(ids_BT.shape[1]) < lengths_B[:, None]
            with autocast(self._compute):
                scores_B1 = self.model.classify(ids_BT.to(device), mask_BT.to(device))
            scores_E[chosen] = scores_B1[:, 0].float().cpu()
        return scores_E
