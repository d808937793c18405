"""config.json and generation_config.json of a GGUF file: its settings under transformers' names.

A setting that is not read here would change what the network computes, so it is refused by name; so are mixtures of
experts, attention that is not causal, and rotary positions that are scaled otherwise than Llama 3.1's.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.foreign import shown, whole
from pipeline.model import gguf_header
from pipeline.model.gguf_header import Header, tensor
from pipeline.tokenizer import gguf_vocabulary

ARCHITECTURES = ("llama", "arcee", "qwen2", "qwen3", "gpt2")
"""Values of general.architecture that are read; Mistral's is llama."""
_CLASSES = {"gpt2": "GPT2LMHeadModel", "arcee": "ArceeForCausalLM"} | {
    family: f"{family.capitalize()}ForCausalLM" for family in ("llama", "mistral", "qwen2", "qwen3")
}
# Settings below the architecture's name that are read; any other would change what the network computes.
_READ = frozenset(
    [
        *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
        *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
        *("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "attention.causal"),
        *("attention.sliding_window", "rope.freq_base", "rope.dimension_count", "rope.scaling.type"),
        *("expert_count", "expert_used_count"),
    ]
)
_MOST = {"block_count": 1024, "embedding_length": 1 << 18, "feed_forward_length": 1 << 20, "context_length": 1 << 26}


class Settings:
    """The settings below the architecture's name."""

    def __init__(self, header: Header) -> None:
        self.where = str(header.path)
        self.architecture = header.metadata.get("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise UserError(
                f"{self.where}: general.architecture is {shown(self.architecture)}; one of: "
                f"{', '.join(ARCHITECTURES)} (Mistral is llama there); take the model as a Hugging Face folder"
            )
        prefix = f"{self.architecture}."
        self.values = {
            key.removeprefix(prefix): value for key, value in header.metadata.items() if key.startswith(prefix)
        }
        if odd := sorted(key for key in self.values if key not in _READ):
            raise UserError(
                f"{self.where}: {prefix}{odd[0]} is {shown(self.values[odd[0]])}, a setting that is not read here, so "
                "the folder would compute another model; take the model as a Hugging Face folder"
            )

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key that may be missing."""
        return self.values.get(key, default)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number within the bounds of published models."""
        value = self.values.get(key, default)
        return whole(value, f"{self.where}: {self.architecture}.{key}", _MOST.get(key, 1 << 14))

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number, as short as float32 needs it: 1e-05, not 9.999999747378752e-06."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise UserError(f"{self.where}: {self.architecture}.{key} is {shown(value)}, expected a number")
        return float(str(np.float32(value)))


def config(header: Header, settings: Settings, names: Mapping[str, str]) -> dict[str, Any]:
    """The content of config.json.

    Args:
        header: of the file.
        settings: of the file.
        names: name of a tensor in the file -> name in transformers.

    Raises:
        UserError: a setting that a folder of transformers cannot express, or a value that no model has.
    """
    tokens = len(gguf_vocabulary.token_list(header.metadata, str(header.path))[0])
    rows = header.tensors["token_embd.weight"].shape[0]
    if rows < tokens:
        raise UserError(f"{header.path}: has {tokens:,} tokens, and embeddings of {rows:,}; {gguf_header.AGAIN}")
    ids = {role: header.metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "padding")}
    shared = {
        "vocab_size": rows,
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": ids["bos"],
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["padding"],
        "use_cache": True,
        "initializer_range": 0.02,
    }
    _refuse_others(settings)
    own = _gpt2(settings) if settings.architecture == "gpt2" else _rotary(header, settings, names)
    return {"architectures": [_CLASSES[own["model_type"]]]} | shared | own


def _refuse_others(settings: Settings) -> None:
    heads, window = settings.get("attention.head_count"), settings.get("attention.sliding_window")
    scaling = settings.get("rope.scaling.type", "none")
    reasons = [
        (settings.get("expert_count", 0) == 0, "it is a mixture of experts"),
        (not isinstance(heads, list), "its layers have different numbers of heads"),
        (scaling == "none", f"its rotary positions are scaled ({shown(scaling)})"),
        (settings.get("attention.causal", True) is True, "its attention is not causal"),
        (window is None or settings.architecture == "llama", "it has a sliding window"),
    ]
    for fine, reason in reasons:
        if not fine:
            raise UserError(f"{settings.where}: cannot be adopted: {reason}; take the model as a Hugging Face folder")


def _gpt2(settings: Settings) -> dict[str, Any]:
    width = settings.count("embedding_length")
    return {
        "model_type": "gpt2",
        "n_layer": settings.count("block_count"),
        "n_head": settings.count("attention.head_count"),
        "n_embd": width,
        "n_inner": settings.count("feed_forward_length", 4 * width),
        "n_positions": settings.count("context_length"),
        "n_ctx": settings.count("context_length"),
        "layer_norm_epsilon": settings.real("attention.layer_norm_epsilon", 1e-5),
        "activation_function": "gelu_new",
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def _rotary(header: Header, settings: Settings, names: Mapping[str, str]) -> dict[str, Any]:
    width, heads = settings.count("embedding_length"), settings.count("attention.head_count")
    size = settings.count("attention.key_length", max(1, width // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if settings.get(key, size) != size:
            raise UserError(
                f"{settings.where}: {key} is {shown(settings.get(key))} and a head has {size} dimensions; only equal "
                "numbers can be adopted; take the model as a Hugging Face folder"
            )
    theta = settings.real("rope.freq_base", 10000.0)
    scaling = _rope_scaling(header, theta, size)
    config: dict[str, Any] = {
        "model_type": settings.architecture,
        "num_hidden_layers": settings.count("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.count("attention.head_count_kv", heads),
        "head_dim": size,
        "hidden_size": width,
        "intermediate_size": settings.count("feed_forward_length"),
        "max_position_embeddings": settings.count("context_length"),
        "rms_norm_eps": settings.real("attention.layer_norm_rms_epsilon"),
        "hidden_act": "relu2" if settings.architecture == "arcee" else "silu",
        "attention_dropout": 0.0,
        # transformers before version 5 reads the first two, later versions the third
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": theta, **(scaling or {"rope_type": "default"})},
    }
    if settings.architecture in ("qwen2", "qwen3"):
        config["use_sliding_window"] = False
    if settings.architecture != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in names
    if settings.architecture in ("llama", "arcee"):
        config["mlp_bias"] = "blk.0.ffn_up.bias" in names
    if (window := settings.get("attention.sliding_window")) is not None:
        config["model_type"] = "mistral"
        config["sliding_window"] = whole(window, f"{settings.where}: attention.sliding_window", 1 << 26)
    return config


def _rope_scaling(header: Header, theta: float, size: int) -> dict[str, Any] | None:
    """Llama 3.1's scaling of rotary frequencies, of which the file holds the divisors [size / 2].

    Its factor is the largest divisor, the other numbers are Llama 3.1's and 3.2's; they are taken only if they give
    these divisors (Llama 3 herd of models, 2024; modeling_rope_utils.py of transformers).
    """
    if "rope_freqs.weight" not in header.tensors:
        return None
    divisors = tensor(header, "rope_freqs.weight")
    scaling = {
        "rope_type": "llama3",
        "factor": float(str(divisors.max())),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = _llama3_divisors(scaling, theta, size)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-4):
        raise UserError(
            f"{header.path}: rope_freqs.weight holds other divisors of the rotary frequencies than Llama 3.1's; take "
            "the model as a Hugging Face folder"
        )
    return scaling


def _llama3_divisors(scaling: Mapping[str, Any], theta: float, size: int) -> np.ndarray:
    wavelengths = 2 * np.pi * theta ** (np.arange(0, size, 2) / size)
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    share = np.clip((original / wavelengths - low) / (high - low), 0.0, 1.0)
    return np.asarray(1 / (share + (1 - share) / factor), np.float32)


def generation(header: Header) -> dict[str, Any]:
    """generation_config.json: an answer ends with eos, or with the token that ends a turn where that is another."""
    ids = {role: header.metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "eot", "padding")}
    ends = [number for number in dict.fromkeys((ids["eos"], ids["eot"])) if number is not None]
    config = {"bos_token_id": ids["bos"], "pad_token_id": ids["padding"]}
    return config | ({"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {})
