"""Prefix tuning: trained keys and values before every text in every layer; the model is frozen (Li & Liang 2021).

Training them directly is unstable, so an MLP computes them from embeddings of its own and is dropped after training
(section 4.3: P[i] = MLP(P'[i])); `hidden: null` trains them directly. Saved in peft's layout.

Shapes: P virtual tokens, L layers, G key-value heads, K head size, D model width.
"""

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config.section import Positive, Section
from pipeline.model.adapters import LearnedPrefix, VirtualTokens, unflattened
from pipeline.model.cache import KeyValue
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, modules_to_save, require_own_family, without_virtual_tokens, write_adapter


class Settings(Section):
    """Length and parametrisation of the prefix."""

    additions: ClassVar[bool] = True
    own_families: ClassVar[bool] = True
    virtual_tokens: Positive = Field(examples=[3])
    """Number of virtual tokens; they take up as much of the model's context."""
    hidden: Positive | None = Field(examples=[8, None])
    """Width of the hidden layer of the MLP that computes keys and values; null: they are trained directly."""
    with_base: bool = Field(examples=[True])
    """Whether the model folder holds the base's weights too; false: the adapter only, with the name and the hash of its
    base."""


def build(settings: Settings) -> "PrefixTuning":
    """The tuner of these settings."""
    return PrefixTuning(settings)


class Reparametrised(VirtualTokens):
    """Keys and values [P, 2 L G K] computed from embeddings [P, D] by an MLP with tanh."""

    def __init__(self, length: int, width: int, hidden: int, flat: int, generator: torch.Generator) -> None:
        super().__init__()
        self.length = length

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=generator.device).normal_(0.0, 0.02, generator=generator))

        self.embeddings, self.first, self.second = drawn(length, width), drawn(hidden, width), drawn(flat, hidden)

    def flat(self) -> Tensor:
        """Keys and values, [P, 2 L G K]."""
        return torch.tanh(self.embeddings @ self.first.T) @ self.second.T

    def key_values(self, model: GPT) -> list[KeyValue]:
        """Keys and values of the prefix, by layer."""
        return unflattened(self.flat(), model)


class PrefixTuning(Adapter):
    """Inserts and saves the prefix."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.whole = settings, settings.with_base

    def insert(self, model: GPT, generator: torch.Generator, _encode: Encode) -> None:
        """Adds a prefix of normal(0, 0.02) parameters to the model."""
        require_own_family(model, "prefix")
        shape, length = model.config, self.settings.virtual_tokens
        flat = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
        if self.settings.hidden is None:
            start = torch.empty(length, flat, device=generator.device).normal_(0.0, 0.02, generator=generator)
            prefix: VirtualTokens = LearnedPrefix(start)
        else:
            prefix = Reparametrised(length, shape.d_model, self.settings.hidden, flat, generator)
        model.virtual = prefix.to(model.embed.weight.device)

    def merge(self, model: GPT) -> GPT:
        """A copy of the base model without the prefix."""
        return without_virtual_tokens(model)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes keys and values in peft's prefix-tuning layout, without the MLP that computed them."""
        assert isinstance(model.virtual, LearnedPrefix | Reparametrised)
        flat_PX = model.virtual.flat if isinstance(model.virtual, LearnedPrefix) else model.virtual.flat()
        shape = model.config
        config = {
            "encoder_hidden_size": self.settings.hidden,
            "modules_to_save": modules_to_save(model),
            "num_attention_heads": shape.n_kv_heads,
            "num_layers": shape.n_layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.settings.virtual_tokens,
            "peft_type": "PREFIX_TUNING",
            "prefix_projection": False,
            "token_dim": shape.n_kv_heads * shape.head_dim,
        }
        write_adapter(model, folder, {"prompt_embeddings": flat_PX.detach()}, config, base_name)
