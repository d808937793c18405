"""Prompt tuning: embeddings of virtual tokens before every text, all else frozen (Lester et al. 2021).

They start as the embeddings of a given text (section 3.2 finds words far better than random vectors, most of all in
small models), repeated or cut to the number of virtual tokens. Saved in peft's layout.
"""

from pathlib import Path

import torch

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.adapters import SoftPrompt
from pipeline.model.gpt import GPT
from pipeline.tuners import Adapter, Encode, without_additions, write_adapter


class Settings(Section):
    """Length and start of the prompt."""

    virtual_tokens: Positive
    text: str
    """Its tokens' embeddings are where the virtual tokens start."""


def build(settings: Settings) -> "Prompt":
    """The tuner of these settings."""
    return Prompt(settings)


class Prompt(Adapter):
    """Inserts and saves the virtual tokens."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def insert(self, model: GPT, generator: torch.Generator, encode: Encode) -> None:
        """Puts the virtual tokens before every text; draws nothing.

        Raises:
            UserError: a text without a token.
        """
        ids = encode(self.settings.text)
        if not ids:
            raise UserError("params.yaml: tuner.text is empty; write what the task is, in a few words")
        n = self.settings.virtual_tokens
        start = torch.tensor((ids * (n // len(ids) + 1))[:n], device=model.embed.weight.device)
        model.virtual = SoftPrompt(model.embed.weight[start].detach().clone())

    def merge(self, model: GPT) -> GPT:
        """A plain copy without the virtual tokens."""
        return without_additions(model)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes what peft's prompt tuning reads."""
        assert isinstance(model.virtual, SoftPrompt)
        shape = model.config
        config = {
            "modules_to_save": None if model.score is None else ["score"],
            "num_attention_heads": shape.n_heads,
            "num_layers": shape.n_layers,
            "num_transformer_submodules": 1,
            "num_virtual_tokens": self.settings.virtual_tokens,
            "peft_type": "PROMPT_TUNING",
            "prompt_tuning_init": "RANDOM",
            "token_dim": shape.d_model,
        }
        write_adapter(model, folder, {"prompt_embeddings": model.virtual.embeddings.detach()}, config, base_name)
