"""Gradual unfreezing with discriminative learning rates: the head first, then block after block from the top (ULMFiT).

Howard & Ruder 2018: section 3.3 unfreezes one more layer group at a time from the last to the first; section 3.2 gives
every lower layer the learning rate of the one above divided by 2.6.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from pipeline.config.section import Section, Share
from pipeline.model.gpt import GPT
from pipeline.tuners import Encode, Tuner, group


class Settings(Section):
    """Speed of unfreezing, and the learning rates of lower layers."""

    freezes: ClassVar[bool] = False
    unfrozen_after: Share = Field(examples=[0.5, 0.0])
    """Share of the run after which all layers are trained; 0: all from the start, with discriminative rates only."""
    rate_divisor: float = Field(ge=1, examples=[2.6])
    """Each layer's learning rate is that of the layer above divided by this; 2.6 in the paper, 1 for equal rates."""


def build(settings: Settings) -> "Gradual":
    """The tuner of these settings."""
    return Gradual(settings)


class Gradual(Tuner):
    """Trains every weight in the end; `groups` holds start and learning rate of each layer."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def apply(self, model: GPT, _generator: torch.Generator, _encode: Encode) -> None:
        """Makes every weight trainable; nothing is random."""
        model.requires_grad_(True)

    def groups(self, model: GPT) -> list[dict[str, Any]]:
        """One group per layer, from the top: heads and final norm, the blocks from last to first, the embeddings."""
        layers: list[list[nn.Module | None]] = [[model.score, model.head, model.final_norm]]
        layers += [[block] for block in reversed(list(model.blocks))]
        layers += [[model.embed, model.positions]]
        names = {id(p): name for name, p in model.named_parameters()}  # a tied head has the embedding's name
        tied = {id(model.embed.weight)}
        groups = []
        for depth, modules in enumerate(layers):
            kept = [p for module in modules if module is not None for p in module.parameters()]
            named = [(names[id(p)], p) for p in kept if depth == len(layers) - 1 or id(p) not in tied]
            if named:
                begins = self.settings.unfrozen_after * depth / (len(layers) - 1)
                groups.append(group(named, self.settings.rate_divisor**-depth, begins))
        return groups
