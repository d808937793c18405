"""Prompt tuning: trained embeddings of virtual tokens before every text; the model is frozen (Lester et al. 2021).

They start as the embeddings of a given text, repeated or cut to the number of virtual tokens: section 3.2 finds words
far better than random vectors, most of all in small models. Saved in peft's layout.
"""

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.adapters import SoftPrompt
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, modules_to_save, require_own_family, without_virtual_tokens, write_adapter


class Settings(Section):
    """Length and initialisation of the soft prompt."""

    additions: ClassVar[bool] = True
    own_families: ClassVar[bool] = True
    virtual_tokens: Positive = Field(examples=[5])
    """Number of virtual tokens; they take up as much of the model's context."""
    text: str = Field(examples=["abc"])
    """Text whose token embeddings initialise the virtual tokens: the task in a few words."""
    with_base: bool = Field(examples=[True])
    """Whether the model folder holds the base's weights too; false: the adapter only, with the name and the hash of its
    base."""


def build(settings: Settings) -> "Prompt":
    """The tuner of these settings."""
    return Prompt(settings)


class Prompt(Adapter):
    """Inserts and saves the virtual tokens."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.whole = settings, settings.with_base

    def insert(self, model: GPT, _generator: torch.Generator, encode: Encode) -> None:
        """Adds the virtual tokens to the model; nothing is random.

        Raises:
            UserError: `text` has no token.
        """
        require_own_family(model, "prompt")
        ids = encode(self.settings.text)
        if not ids:
            raise UserError("params.yaml: tuner.text is empty; expected the task in a few words")
        n = self.settings.virtual_tokens
        start = torch.tensor((ids * (n // len(ids) + 1))[:n], device=model.embed.weight.device)
        model.virtual = SoftPrompt(model.embed.weight[start].detach().clone())

    def merge(self, model: GPT) -> GPT:
        """A copy of the base model without the virtual tokens."""
        return without_virtual_tokens(model)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes the virtual tokens in peft's prompt-tuning layout."""
        assert isinstance(model.virtual, SoftPrompt)
        shape = model.config
        config = {
            "modules_to_save": modules_to_save(model),
            "num_attention_heads": shape.n_heads,
            "num_layers": shape.n_layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.settings.virtual_tokens,
            "peft_type": "PROMPT_TUNING",
            "prompt_tuning_init": "RANDOM",
            "token_dim": shape.d_model,
        }
        write_adapter(model, folder, {"prompt_embeddings": model.virtual.embeddings.detach()}, config, base_name)
