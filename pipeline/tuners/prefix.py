"""Prefix tuning: keys and values before every text in every layer, all else frozen (Li & Liang 2021).

Trained directly they are unstable, so a small network makes them from embeddings of its own and is thrown away after
training (section 4.3: P[i] = MLP(P'[i])); `hidden: null` trains them directly. Saved in peft's layout.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config.section import Positive, Section
from pipeline.model.adapters import LearnedPrefix, Virtual, unfolded
from pipeline.model.cache import KeyValue
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, without_additions, write_adapter


class Settings(Section):
    """Length of the prefix and the network behind it."""

    virtual_tokens: Positive
    hidden: Positive | None
    """Width of the reparametrisation's hidden layer; null: none, the keys and values are the parameters."""


def build(settings: Settings) -> "PrefixTuning":
    """The tuner of these settings."""
    return PrefixTuning(settings)


class Reparametrised(Virtual):
    """Embeddings [P, D] -> tanh -> keys and values [P, 2 L G K]."""

    def __init__(self, length: int, width: int, hidden: int, flat: int, generator: torch.Generator) -> None:
        super().__init__()
        self.length = length

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=generator.device).normal_(0.0, 0.02, generator=generator))

        self.embeddings, self.first, self.second = drawn(length, width), drawn(hidden, width), drawn(flat, hidden)

    def flat(self) -> Tensor:
        """[P, 2 L G K]."""
        return torch.tanh(self.embeddings @ self.first.T) @ self.second.T

    def before(self, model: GPT) -> list[KeyValue]:
        """Keys and values of every layer."""
        return unfolded(self.flat(), model)


class PrefixTuning(Adapter):
    """Inserts and saves the prefix."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def insert(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Puts a drawn prefix before every text."""
        shape, length = model.config, self.settings.virtual_tokens
        flat = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
        if self.settings.hidden is None:
            start = torch.empty(length, flat, device=generator.device).normal_(0.0, 0.02, generator=generator)
            made: Virtual = LearnedPrefix(start)
        else:
            made = Reparametrised(length, shape.d_model, self.settings.hidden, flat, generator)
        model.virtual = made.to(model.embed.weight.device)

    def merge(self, model: GPT) -> GPT:
        """A plain copy without the prefix."""
        return without_additions(model)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes what peft's prefix tuning reads: the keys and values, without the network that made them."""
        assert isinstance(model.virtual, LearnedPrefix | Reparametrised)
        flat_PX = model.virtual.flat if isinstance(model.virtual, LearnedPrefix) else model.virtual.flat()
        shape = model.config
        config = {
            "encoder_hidden_size": self.settings.hidden,
            "modules_to_save": None if model.score is None else ["score"],
            "num_attention_heads": shape.n_kv_heads,
            "num_layers": shape.n_layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.settings.virtual_tokens,
            "peft_type": "PREFIX_TUNING",
            "prefix_projection": False,
            "token_dim": shape.n_kv_heads * shape.head_dim,
        }
        write_adapter(model, folder, {"prompt_embeddings": flat_PX.detach()}, config, base_name)
