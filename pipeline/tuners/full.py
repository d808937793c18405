"""Full training: every weight is trained; for pretraining and full fine-tuning."""

from typing import ClassVar

import torch

from pipeline.config.section import Section
from pipeline.model.gpt import GPT
from pipeline.tuners import Encode, Tuner


class Settings(Section):
    """No settings."""

    freezes: ClassVar[bool] = False


def build(_settings: Settings) -> "Full":
    """The tuner."""
    return Full()


class Full(Tuner):
    """Trains the whole network."""

    def apply(self, model: GPT, _generator: torch.Generator, _encode: Encode) -> None:
        """Makes every weight trainable; nothing is random."""
        model.requires_grad_(True)
