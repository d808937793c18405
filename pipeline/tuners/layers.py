"""Only chosen layers move: the last blocks, the first ones, or weights by name; the rest stays as pretrained.

The book's recipe for spam is last: 1 (Raschka, Build a Large Language Model (From Scratch), 2024, ch. 6.5).
"""

import re

import torch
from torch import nn

from pipeline.config.section import Count, Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.tuners import Encode, Tuner


class Settings(Section):
    """Which parts move; what any of them names moves. The classification head always does."""

    last: Count
    """Blocks, counted from the end; the final norm moves with them."""
    first: Count
    """Blocks, counted from the beginning."""
    pattern: str | None
    """A regular expression that is searched for in the weights' names: "attention" or "blocks.[02].mlp"; null: none."""
    embeddings: bool
    """Token and position embeddings move too, and the language head with them."""


def build(settings: Settings) -> "Layers":
    """The tuner of these settings. Raises UserError on a pattern that is no regular expression."""
    try:
        re.compile(settings.pattern or "")
    except re.error as error:
        raise UserError(
            f"params.yaml: tuner.pattern is {settings.pattern!r}: {error}; expected a regular expression"
        ) from None
    return Layers(settings)


class Layers(Tuner):
    """Trains what the settings name."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Freezes everything else; draws nothing.

        Raises:
            UserError: more blocks asked for than the model has, or a pattern that names no weight.
        """
        last, first, n_layers = self.settings.last, self.settings.first, model.config.n_layers
        if max(last, first) > n_layers:
            key = "last" if last > n_layers else "first"
            raise UserError(
                f"params.yaml: tuner.{key} is {max(last, first)}, the model has {n_layers} blocks; lower it"
            )
        model.requires_grad_(False)
        moving: list[nn.Module | None] = [*model.blocks[n_layers - last :], *model.blocks[:first], model.score]
        if last or not (first or self.settings.pattern):
            moving.append(model.final_norm)
        if self.settings.embeddings:
            moving += [model.embed, model.positions, model.head]
        for module in moving:
            if module is not None:
                module.requires_grad_(True)
        if self.settings.pattern is not None:
            self._by_name(model, self.settings.pattern)

    def _by_name(self, model: GPT, pattern: str) -> None:
        names = [name for name, _ in model.named_parameters()]
        found = [name for name in names if re.search(pattern, name)]
        if not found:
            raise UserError(
                f"params.yaml: tuner.pattern is {pattern!r} and names no weight; the weights are called "
                f"{', '.join(names[:4])} and so on"
            )
        for name in found:
            model.get_parameter(name).requires_grad_(True)
