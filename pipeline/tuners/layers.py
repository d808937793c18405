"""Only the last blocks move, with the final norm and the classification head; the rest stays as pretrained.

The book's recipe for spam is last: 1 (Raschka, Build a Large Language Model (From Scratch), 2024, ch. 6.5).
"""

import torch
from torch import nn

from pipeline.config import Count, Section, UserError
from pipeline.model.gpt import GPT
from pipeline.tuners import Encode, Tuner


class Settings(Section):
    """How much of the end of the network moves."""

    last: Count
    """Blocks, counted from the end."""
    embeddings: bool
    """Token and position embeddings move too, and the language head with them."""


def build(settings: Settings) -> "Layers":
    """The tuner of these settings."""
    return Layers(settings)


class Layers(Tuner):
    """Trains the last blocks, the final norm, the classification head, and the embeddings if asked."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Freezes everything else; draws nothing.

        Raises:
            UserError: more blocks asked for than the model has.
        """
        last, n_layers = self.settings.last, model.config.n_layers
        if last > n_layers:
            raise UserError(f"params.yaml: tuner.last is {last}, the model has {n_layers} blocks; lower it")
        model.requires_grad_(False)
        moving: list[nn.Module | None] = [*model.blocks[n_layers - last :], model.final_norm, model.score]
        if self.settings.embeddings:
            moving += [model.embed, model.positions, model.head]
        for module in moving:
            if module is not None:
                module.requires_grad_(True)
