"""Sizes and parts of a model that transformers computes, found in its config and its module tree."""

import re
from typing import TYPE_CHECKING, Literal

from torch import nn

from pipeline.errors import UserError
from pipeline.model.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Architecture = Literal["decoder", "encoder", "encoder_decoder"]
_ATTENTION = re.compile(r"att(entio)?n", re.IGNORECASE)


class LibraryConfig(ModelConfig):
    """The sizes of a model of transformers, under the names of ours; options of ours that it lacks are off."""

    family: str  # type: ignore[assignment]  # any model_type of transformers, not one of our families
    architecture: Architecture
    """What it reads and gives."""

    def _fits(self) -> "LibraryConfig":  # type: ignore[override]  # a validator of ours, switched off
        """The rules of our families are not those of others."""
        return self

    def _mlp_bias_exists(self) -> "LibraryConfig":  # type: ignore[override]  # likewise
        return self


def library_config(net: "PreTrainedModel", architecture: Architecture) -> LibraryConfig:
    """The sizes in a model's config.

    Raises:
        UserError: a size that cannot be found.
    """
    config = net.config.get_text_config()

    def size(*names: str, otherwise: int | None = None) -> int:
        values = [value for name in names if isinstance(value := getattr(config, name, None), int)]
        if not values and otherwise is None:
            raise UserError(f"config.json of a {config.model_type} model: none of {', '.join(names)} is there")
        return values[0] if values else int(otherwise or 0)

    heads = size("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads")
    width = size("hidden_size", "n_embd", "d_model", "dim")
    return LibraryConfig(
        family=net.config.model_type,
        architecture=architecture,
        n_layers=sum(len(blocks) for blocks in stacks(net.base_model).values()),
        n_heads=heads,
        n_kv_heads=size("num_key_value_heads", otherwise=heads),
        head_dim=size("head_dim", "d_kv", otherwise=max(width // heads, 1)),
        d_model=width,
        d_ff=size("intermediate_size", "n_inner", "d_ff", "hidden_dim", "encoder_ffn_dim", otherwise=4 * width),
        context_length=_positions(net)
        or size("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", otherwise=512),
        dropout=0.0,
        tie_embeddings=bool(getattr(config, "tie_word_embeddings", False)),
        bias=True,
        rope_theta=10000.0,
        norm_epsilon=1e-5,
        logit_softcap=None,
        vocab_size=int(config.vocab_size),
    )


def _positions(net: "PreTrainedModel") -> int | None:
    """Positions of a table that keeps rows for padding, which take none of a text (RoBERTa); None without one."""
    for name, module in net.base_model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return None


def attention_part(name: str) -> bool:
    """Whether a module of a block belongs to its attention, by its name."""
    return bool(_ATTENTION.search(name))


def stacks(base: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of blocks of a network by name: one, or those of encoder and decoder."""
    lists = {name: module for name, module in base.named_modules() if isinstance(module, nn.ModuleList) and len(module)}
    outermost = {
        name: blocks
        for name, blocks in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists if other != name)
    }
    return {
        name: blocks for name, blocks in outermost.items() if any(isinstance(m, nn.Linear) for m in blocks.modules())
    }
