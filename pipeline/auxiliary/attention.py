"""Guided attention: chosen heads are drawn to words that are known to matter, or to a simple pattern.

Words: the mass that a head puts on them, from every token behind them, is pulled up by its negative logarithm (a loss
on attention against given spans, as in Stacey et al. 2022, "Supervising model attention with human explanations").
Patterns: the token before, or the first one (Deshpande & Narasimhan 2020, "Guiding attention for self-supervised
learning with transformers", section 3). Texts without any of the words are left alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.auxiliary import Losses
from pipeline.config.section import Count, Section
from pipeline.contracts import Batch, Learner
from pipeline.errors import UserError
from pipeline.model.gpt import GPT, Shown


class Settings(Section):
    weight: Annotated[float, Field(gt=0)]
    """Of the guidance beside the objective's loss; lower it if accuracy suffers."""
    heads: Annotated[dict[Count, Annotated[list[Count], Field(min_length=1)]], Field(min_length=1)]
    """Block number from 0 -> the heads of it that are guided."""
    towards: Literal["words", "previous", "first"]
    words: list[str]
    """With `words`: what to look at, each taken with and without a space before it; empty otherwise."""


def build(settings: Settings, learner: Learner) -> Losses:
    """The objective's losses with the guidance added.

    Raises:
        UserError: heads the model does not have, or words that do not fit `towards`.
    """
    shape = learner.model.config
    for layer, heads in settings.heads.items():
        if layer >= shape.n_layers or max(heads) >= shape.n_heads:
            raise UserError(
                f"params.yaml: auxiliary.heads names block {layer}, heads {heads}; the model has blocks 0 to "
                f"{shape.n_layers - 1} of heads 0 to {shape.n_heads - 1}"
            )
    if (settings.towards == "words") != bool(settings.words):
        raise UserError(
            f"params.yaml: auxiliary.towards is {settings.towards!r} and auxiliary.words {settings.words}; words go "
            "with towards: words, and only there"
        )
    return Guided(settings, learner).losses


class Guided:
    def __init__(self, settings: Settings, learner: Learner) -> None:
        self.settings, self.learner = settings, learner
        self.spellings = spellings(learner.tokenizer.encode, settings.words)

    def losses(self, model: GPT, batch: Batch) -> Tensor:
        """losses_B: the objective's plus weight times the mean of -log of the mass on the target, nats."""
        with model.shown(Shown(attentions=self.settings.heads)) as seen:
            losses_B = self.learner.objective.losses(model, batch)
        wanted_BTT = targets(batch["inputs"], self.settings.towards, self.spellings)
        mass_BHT, counts_BT = mass(wanted_BTT, self.learner.real(batch["inputs"]), seen, self.settings.heads)
        guided_BT = -mass_BHT.clamp(min=1e-6).log().mean(1) * counts_BT
        return losses_B + self.settings.weight * guided_BT.sum(1) / counts_BT.sum(1).clamp(min=1)


def spellings(encode: Callable[[str], list[int]], words: Sequence[str]) -> list[tuple[int, ...]]:
    """The ids of every word, with and without a space before it."""
    return sorted({tuple(encode(text)) for word in words for text in (word, f" {word}")})


def mass(wanted_BTT: Tensor, real_BT: Tensor, seen: Shown, heads: Mapping[int, Sequence[int]]) -> tuple[Tensor, Tensor]:
    """How much of their attention these heads put on the target: [B, heads, T], and 1 at the tokens where it counts."""
    T = wanted_BTT.shape[1]
    found = [
        # virtual tokens stand in front of the text's own keys
        (seen.attentions[layer][:, chosen, :T, -T:].float() * wanted_BTT[:, None]).sum(-1)
        for layer, chosen in heads.items()
    ]
    return torch.cat(found, dim=1), (wanted_BTT.any(-1) & real_BT).float()


def targets(inputs_BT: Tensor, towards: str, spelled: Sequence[tuple[int, ...]]) -> Tensor:
    """wanted_BTT: true where the token of the row should look at the token of the column."""
    B, T = inputs_BT.shape
    at = torch.arange(T, device=inputs_BT.device)
    if towards == "previous":
        return (at[:, None] - 1 == at)[None].expand(B, T, T)
    if towards == "first":
        return ((at == 0)[None, :] & (at > 0)[:, None])[None].expand(B, T, T)
    spans_BT = torch.zeros_like(inputs_BT, dtype=torch.bool)
    for ids in spelled:
        for start in range(T - len(ids) + 1):
            same_B = (inputs_BT[:, start : start + len(ids)] == inputs_BT.new_tensor(ids)).all(1)
            spans_BT[:, start : start + len(ids)] |= same_B[:, None]
    return spans_BT[:, None, :] & (at[:, None] > at)[None]
