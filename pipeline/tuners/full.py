"""Every weight moves: pretraining and full fine-tuning.

A tuner offers `apply` (freeze, insert), `groups` (what the optimizer moves, with learning-rate factors),
`state` (tensors of an adapter, empty where there is none), `merge` (a plain model) and `save_adapter`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Section
from pipeline.model.gpt import GPT
from pipeline.tuners import moving


class Settings(Section):
    """Nothing to set."""


def build(settings: Settings) -> "Full":
    """The tuner of these settings."""
    return Full()


class Full:
    """Trains the whole network."""

    def apply(self, model: GPT, generator: torch.Generator) -> None:
        """Lets every weight move; draws nothing."""
        model.requires_grad_(True)

    def groups(self, model: GPT) -> list[dict[str, Any]]:
        """One group with all weights, learning-rate factor 1."""
        return [moving(model)]

    def state(self, model: GPT) -> dict[str, Tensor]:
        """No adapter: empty."""
        return {}

    def merge(self, model: GPT) -> GPT:
        """The model itself."""
        return model

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """No adapter: writes nothing."""
