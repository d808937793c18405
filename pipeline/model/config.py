"""Hyperparameters of the architecture: `pretrain.model` of params.yaml, the vocabulary, and options that only open
weights use."""

from typing import Literal, Self

from pydantic import model_validator

from pipeline.config.recipe import Model
from pipeline.config.section import Positive, Section

_NO_MLP_BIAS = ("mistral", "qwen2", "qwen3", "nanochat")
_WINDOWED = ("mistral",)


class RopeScaling(Section):
    """Frequency scaling of rotary positions as Llama 3.1 (2024) has it: rope_type "llama3" of config.json."""

    rope_type: Literal["llama3"]
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


class ModelConfig(Model):
    """Hyperparameters of a network's architecture."""

    vocab_size: Positive
    mlp_bias: bool | None = None
    """Biases in the MLP; null: as `bias`, but none in Mistral, Qwen2, Qwen3 and NanoChat, which never have any."""
    rope_scaling: RopeScaling | None = None
    sliding_window: Positive | None = None
    """Positions that a token attends to, its own included (Mistral 7B, Jiang et al. 2023, section 2); only family
    mistral; null: all before it."""

    @model_validator(mode="after")
    def _mlp_bias_exists(self) -> Self:
        if self.family in _NO_MLP_BIAS and self.mlp_bias:
            raise ValueError(f"family {self.family} has no biases in its MLP; set mlp_bias to null")
        return self

    @model_validator(mode="after")
    def _sliding_window_exists(self) -> Self:
        if self.sliding_window is not None and self.family not in _WINDOWED:
            raise ValueError(f"family {self.family} has no sliding window; set sliding_window to null")
        return self

    @property
    def biased_output(self) -> bool:
        """Whether attention's output projection has a bias."""
        return self.bias and self.family != "qwen2"

    def window_within(self, positions: int) -> int | None:
        """The sliding window, if it hides any of so many positions from the last one; else None."""
        return self.sliding_window if self.sliding_window is not None and self.sliding_window < positions else None

    @property
    def biased_mlp(self) -> bool:
        """Whether the MLP has biases."""
        return (self.bias and self.family not in _NO_MLP_BIAS) if self.mlp_bias is None else self.mlp_bias
