"""Every weight moves: pretraining and full fine-tuning."""

import torch

from pipeline.config.section import Section
from pipeline.model.gpt import GPT
from pipeline.tuners import Encode, Tuner


class Settings(Section):
    """Nothing to set."""


def build(settings: Settings) -> "Full":
    """The tuner of these settings."""
    return Full()


class Full(Tuner):
    """Trains the whole network."""

    def apply(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Lets every weight move; draws nothing."""
        model.requires_grad_(True)
