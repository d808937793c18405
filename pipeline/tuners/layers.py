"""Partial fine-tuning: chosen layers are trained (the last blocks, the first, or weights by name), the rest is frozen.

`last: 1` is the recipe for spam in Raschka, Build a Large Language Model (From Scratch), 2024, chapter 6.5.
"""

import re

import torch
from pydantic import Field
from torch import nn

from pipeline.config.section import Count, Section
from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.tuners import Encode, Tuner


class Settings(Section):
    """The trained weights: all that any setting names, and always the classification head."""

    last: Count = Field(examples=[1, 2])
    """Blocks to train, counted from the last; the final norm is trained with them."""
    first: Count = Field(examples=[0, 1])
    """Blocks to train, counted from the first."""
    pattern: str | None = Field(examples=[None, "mlp"])
    """Regular expression searched for in the weights' names, such as "attention" or "blocks.[02].mlp"; null: none."""
    embeddings: bool = Field(examples=[False, True])
    """Whether token and position embeddings and the language head are trained too."""


def build(settings: Settings) -> "Layers":
    """The tuner of these settings. Raises UserError on an invalid regular expression."""
    try:
        re.compile(settings.pattern or "")
    except re.error as error:
        raise UserError(
            f"params.yaml: tuner.pattern is {settings.pattern!r}: {error}; expected a regular expression"
        ) from None
    return Layers(settings)


class Layers(Tuner):
    """Trains the chosen layers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def apply(self, model: GPT, _generator: torch.Generator, _encode: Encode) -> None:
        """Makes the chosen weights trainable and freezes all others; nothing is random.

        Raises:
            UserError: more blocks than the model has, or a pattern that matches no weight.
        """
        last, first, n_layers = self.settings.last, self.settings.first, model.config.n_layers
        if max(last, first) > n_layers:
            key = "last" if last > n_layers else "first"
            raise UserError(
                f"params.yaml: tuner.{key} is {max(last, first)}, the model has {n_layers} blocks; lower it"
            )
        model.requires_grad_(False)
        trained: list[nn.Module | None] = [*model.blocks[n_layers - last :], *model.blocks[:first], model.score]
        if last or not (first or self.settings.pattern):
            trained.append(model.final_norm)
        if self.settings.embeddings:
            trained += [model.embed, model.positions, model.head]
        for module in trained:
            if module is not None:
                module.requires_grad_(True)
        if self.settings.pattern is not None:
            self._train_by_name(model, self.settings.pattern)

    def _train_by_name(self, model: GPT, pattern: str) -> None:
        names = [name for name, _ in model.named_parameters()]
        matching = [name for name in names if re.search(pattern, name)]
        if not matching:
            raise UserError(
                f"params.yaml: tuner.pattern is {pattern!r} and matches no weight; the weights' names are "
                f"{', '.join(names[:4])} and so on"
            )
        for name in matching:
            model.get_parameter(name).requires_grad_(True)
