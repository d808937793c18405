"""Bottleneck adapters after attention and MLP of every block; the model is frozen (Houlsby et al. 2019).

y + W_up gelu(W_down y), section 2.1; W_up starts at zero, so the model starts unchanged. They cannot be merged into
plain weights: they are saved beside the base model and inserted again when it is read.
"""

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.model.adapters import Bottleneck, insert_bottlenecks, replace_module
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, without_virtual_tokens, write_adapter


class Settings(Section):
    """Size of the adapters."""

    additions: ClassVar[bool] = True
    width: Positive = Field(examples=[4])
    """Features of the bottleneck, the adapter's hidden layer."""
    with_base: bool = Field(examples=[True])
    """Whether the model folder holds the base's weights too; false: the adapter only, with the name and the hash of its
    base."""


def build(settings: Settings) -> "Bottlenecks":
    """The tuner of these settings."""
    return Bottlenecks(settings)


class Bottlenecks(Adapter):
    """Inserts and saves the adapters."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.whole = settings, settings.with_base

    def insert(self, model: GPT, generator: torch.Generator, _encode: Encode) -> None:
        """Inserts the adapters: W_down from normal(0, 0.02), W_up zero."""
        for adapter in insert_bottlenecks(model, self.settings.width).values():
            start = torch.empty(adapter.narrow.shape, device=generator.device).normal_(0.0, 0.02, generator=generator)
            with torch.no_grad():
                adapter.narrow.copy_(start)

    def merge(self, model: GPT) -> GPT:
        """A copy of the base model without the adapters."""
        plain = without_virtual_tokens(model)
        for name, adapter in _bottlenecks(plain).items():
            replace_module(plain, name, adapter.base)
        return plain

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes a layout that `pipeline.model.adapters` reads; peft has no adapter of this kind."""
        tensors = {
            f"{name}.{part}": getattr(adapter, part).detach()
            for name, adapter in _bottlenecks(model).items()
            for part in ("narrow", "wide")
        }
        write_adapter(model, folder, tensors, {"peft_type": "BOTTLENECK", "width": self.settings.width}, base_name)


def _bottlenecks(model: GPT) -> dict[str, Bottleneck]:
    return {name: module for name, module in model.named_modules() if isinstance(module, Bottleneck)}
