"""Bottleneck adapters: a small network behind attention and MLP of every block, all else frozen (Houlsby et al. 2019).

y + W_up gelu(W_down y), section 2.1; W_up starts at zero, so the model starts unchanged. No plain weight can hold them:
they are saved beside the base model and put back when it is read.
"""

from pathlib import Path

import torch

from pipeline.config.section import Positive, Section
from pipeline.model.adapters import Bottleneck, insert_bottlenecks, replace
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, without_additions, write_adapter


class Settings(Section):
    """Size of the additions."""

    width: Positive
    """Features in the narrow middle."""


def build(settings: Settings) -> "Bottlenecks":
    """The tuner of these settings."""
    return Bottlenecks(settings)


class Bottlenecks(Adapter):
    """Inserts and saves the small networks."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def insert(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Inserts the networks (W_down normal(0, 0.02), W_up zero)."""
        for made in insert_bottlenecks(model, self.settings.width).values():
            drawn = torch.empty(made.narrow.shape, device=generator.device).normal_(0.0, 0.02, generator=generator)
            with torch.no_grad():
                made.narrow.copy_(drawn)

    def merge(self, model: GPT) -> GPT:
        """A plain copy without the small networks."""
        plain = without_additions(model)
        for name, made in _bottlenecks(plain).items():
            replace(plain, name, made.base)
        return plain

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes what `pipeline.model.adapters` reads; peft knows no adapter of this kind."""
        tensors = {
            f"{name}.{part}": getattr(made, part).detach()
            for name, made in _bottlenecks(model).items()
            for part in ("narrow", "wide")
        }
        write_adapter(model, folder, tensors, {"peft_type": "BOTTLENECK", "width": self.settings.width}, base_name)


def _bottlenecks(model: GPT) -> dict[str, Bottleneck]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Bottleneck)}
