"""config.json of the transformers library, written from a `ModelConfig` and read into one; no disk access.

Options of transformers that this network does not compute are refused, never ignored.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.config.recipe import FIXED_BIAS
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown, whole
from pipeline.model.config import ModelConfig
from pipeline.model.hf_format import FAMILIES

# config.json keys that must have one of these values where they are present; the network computes nothing else.
_ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "llama": {
        "hidden_act": ("silu",),
        "partial_rotary_factor": (None, 1.0),
        "rope_interleaved": (None, False),
    },
    "mistral": {"hidden_act": ("silu",), "partial_rotary_factor": (None, 1.0), "layer_types": (None,)},
    "qwen2": {
        "hidden_act": ("silu",),
        "partial_rotary_factor": (None, 1.0),
        "use_sliding_window": (False, None),
    },
    "qwen3": {
        "hidden_act": ("silu",),
        "partial_rotary_factor": (None, 1.0),
        "use_sliding_window": (False, None),
    },
    "arcee": {"hidden_act": ("relu2",), "partial_rotary_factor": (None, 1.0)},
    "nanochat": {"hidden_act": ("relu2",), "partial_rotary_factor": (None, 1.0)},
}


PROBLEM_TYPES = {"multi_label": "multi_label_classification", "regress": "regression", "reward": "regression"}
"""Task -> `problem_type` of its head in transformers; other heads answer with one label."""


def problem_type(metadata: Mapping[str, Any] | None) -> dict[str, str]:
    """`problem_type` of config.json from the content of tohum.json; {} for a head that answers with one label."""
    names = [task.get("name") for task in (metadata or {}).get("tasks") or ()]
    return next(({"problem_type": PROBLEM_TYPES[name]} for name in names if name in PROBLEM_TYPES), {})


def exported_config(
    config: ModelConfig, labels: list[str] | None, bos: int | None, eos: int | None, pad: int | None
) -> dict[str, Any]:
    """The content of config.json."""
    kind = "LMHeadModel" if config.family == "gpt2" else "ForCausalLM"
    shared: dict[str, Any] = {
        "architectures": [FAMILIES[config.family] + (kind if labels is None else "ForSequenceClassification")],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "float32",
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
    }
    if labels is not None:
        shared["id2label"] = {str(number): label for number, label in enumerate(labels)}
        shared["label2id"] = {label: number for number, label in enumerate(labels)}
        shared["problem_type"] = "single_label_classification"
    return shared | (_gpt2_config(config) if config.family == "gpt2" else _rotary_config(config))


def _gpt2_config(config: ModelConfig) -> dict[str, Any]:
    dropouts = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout)
    return dropouts | {
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_embd": config.d_model,
        "n_inner": config.d_ff,
        "n_positions": config.context_length,
        "n_ctx": config.context_length,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": "gelu_new",
        # Only ours: transformers' GPT-2 always has biases, so a network without is stored with zeros there.
        "bias": config.bias,
    }


def _rotary_config(config: ModelConfig) -> dict[str, Any]:
    scaling = None if config.rope_scaling is None else config.rope_scaling.model_dump()
    own: dict[str, dict[str, Any]] = {
        "mistral": {"sliding_window": config.sliding_window},
        "qwen2": {"use_sliding_window": False},
        "qwen3": {"use_sliding_window": False},
        "nanochat": {"final_logit_softcapping": config.logit_softcap},
    }
    return own.get(config.family, {"mlp_bias": config.biased_mlp}) | {
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_epsilon,
        **({} if config.family in FIXED_BIAS else {"attention_bias": config.bias}),
        "attention_dropout": config.dropout,
        "hidden_act": _ONLY[config.family]["hidden_act"][0],
        # transformers before version 5 reads the first two, later versions the third.
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": config.rope_theta, **(scaling or {"rope_type": "default"})},
    }


def model_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """The hyperparameters in a config.json; `where` names the file in errors.

    Raises:
        UserError: another family, a missing key, a value that no model has, or a feature that our network lacks.
    """
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise UserError(f"{where}: model_type is {shown(family)}; one of: {', '.join(sorted(FAMILIES))}")
    for key, allowed in _ONLY[family].items():
        if key in raw and raw[key] not in allowed:
            raise UserError(f"{where}: {key} is {shown(raw[key])}; we compute only {' or '.join(map(repr, allowed))}")
    if raw.get("quantization_config"):
        raise UserError(f"{where}: the weights are quantized; start from the plain (bfloat16 or float32) weights")
    if raw.get("auto_map") or raw.get("trust_remote_code"):
        raise UserError(
            f"{where}: auto_map or trust_remote_code names code of its own, {shown(raw.get('auto_map'))}, and no code "
            "of a model folder is run; start from a model that transformers computes without"
        )
    read: Callable[[dict[str, Any], str], dict[str, Any]] = _read_gpt2 if family == "gpt2" else _read_rotary
    try:
        fields = read(raw, where)
        fields |= {"family": family, "vocab_size": _size(raw, "vocab_size", where)}
        config = ModelConfig.model_validate(fields, strict=True)
    except KeyError as error:
        raise UserError(f"{where}: key {error.args[0]} is missing; a {family} config.json has it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or family
        value = "" if isinstance(first["input"], dict) else f", found {shown(first['input'])}"
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {key}: {message}{value}; {AGAIN}") from None
    _require_finite_angles(config, where)
    return config


def labels_in(raw: dict[str, Any], where: str) -> list[str] | None:
    """The class names in a config.json, in the order of the scores; None for a language model.

    Raises:
        UserError: a classifier's id2label that does not name the classes 0, 1, ... once each.
    """
    kinds, named = raw.get("architectures") or [], raw.get("id2label")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise UserError(f"{where}: architectures is {shown(kinds)}, expected a list of names; {AGAIN}")
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        return None
    if isinstance(named, dict) and all(isinstance(label, str) for label in named.values()):
        numbers = [str(number) for number in range(len(named))]
        if named and sorted(named) == sorted(numbers) and len(set(named.values())) == len(named):
            return [named[number] for number in numbers]
    raise UserError(
        f'{where}: id2label is {shown(named)}, expected one distinct name per class, {{"0": ..., "1": ...}}; {AGAIN}'
    )


# Largest values that are accepted, far above published models: a hostile config must not exhaust memory.
_MOST = {
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 1 << 14,
    "hidden_size": 1 << 18,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 26,
    "vocab_size": 1 << 24,
}
_MOST |= {"n_layer": 1024, "n_head": 4096, "n_embd": 1 << 18, "n_inner": 1 << 20, "n_positions": 1 << 26}


def _size(raw: dict[str, Any], key: str, where: str) -> int:
    return whole(raw[key], f"{where}: {key}", _MOST[key])


def _require_finite_angles(config: ModelConfig, where: str) -> None:
    """Raises UserError for values with which rotary angles or norms would overflow or divide by zero."""
    scaling = config.rope_scaling
    checks = [
        ("rope_theta", config.rope_theta, 1.0 <= config.rope_theta <= 1e12, "1 to 1e12"),
        ("the epsilon of its norms", config.norm_epsilon, config.norm_epsilon <= 1.0, "above 0, at most 1"),
    ]
    if scaling is not None:
        slow, fast = scaling.low_freq_factor, scaling.high_freq_factor
        checks += [
            ("the factor of its rope scaling", scaling.factor, 1.0 <= scaling.factor <= 1e6, "1 to 1e6"),
            ("low_freq_factor", slow, 0 < slow < fast, f"above 0, below high_freq_factor, which is {fast}"),
            (
                "original_max_position_embeddings",
                scaling.original_max_position_embeddings,
                0 < scaling.original_max_position_embeddings <= 1 << 26,
                f"1 to {1 << 26:,}",
            ),
        ]
    for name, value, valid, expected in checks:
        if not valid:
            raise UserError(f"{where}: {name} is {shown(value)}, expected {expected}; {AGAIN}")


def _read_gpt2(raw: dict[str, Any], where: str) -> dict[str, Any]:
    heads, width = _size(raw, "n_head", where), _size(raw, "n_embd", where)
    if width % heads:
        raise UserError(f"{where}: n_head {heads} does not divide n_embd {width}; {AGAIN}")
    return {
        "n_layers": _size(raw, "n_layer", where),
        "n_heads": heads,
        "n_kv_heads": heads,
        "head_dim": width // heads,
        "d_model": width,
        "d_ff": 4 * width if raw.get("n_inner") is None else _size(raw, "n_inner", where),
        "context_length": _size(raw, "n_positions", where),
        "dropout": raw.get("resid_pdrop", 0.1),
        "tie_embeddings": raw.get("tie_word_embeddings", True),
        "bias": raw.get("bias", True),
        "logit_softcap": None,
        "rope_theta": 10000.0,
        "norm_epsilon": raw.get("layer_norm_epsilon", 1e-5),
    }


def _read_rotary(raw: dict[str, Any], where: str) -> dict[str, Any]:
    heads, width = _size(raw, "num_attention_heads", where), _size(raw, "hidden_size", where)
    theta, kind, rope = _read_rope(raw, where)
    return {
        "n_layers": _size(raw, "num_hidden_layers", where),
        "n_heads": heads,
        "n_kv_heads": heads if raw.get("num_key_value_heads") is None else _size(raw, "num_key_value_heads", where),
        "head_dim": max(1, width // heads) if raw.get("head_dim") is None else _size(raw, "head_dim", where),
        "d_model": width,
        "d_ff": _size(raw, "intermediate_size", where),
        "context_length": _size(raw, "max_position_embeddings", where),
        "dropout": 0.0 if raw.get("attention_dropout") is None else raw["attention_dropout"],
        "tie_embeddings": raw.get("tie_word_embeddings", False),
        "bias": FIXED_BIAS.get(raw["model_type"], raw.get("attention_bias", False)),
        "mlp_bias": raw.get("mlp_bias", False) if raw["model_type"] in ("llama", "arcee") else None,
        # transformers caps a NanoChat model's logits where its config.json does not set the cap
        "logit_softcap": raw.get("final_logit_softcapping", 15.0) if raw["model_type"] == "nanochat" else None,
        "rope_theta": theta,
        "norm_epsilon": raw.get("rms_norm_eps", 1e-6),
        "rope_scaling": {"rope_type": "llama3", **rope} if kind == "llama3" else None,
        "sliding_window": _read_window(raw, where) if raw["model_type"] == "mistral" else None,
    }


def _read_window(raw: dict[str, Any], where: str) -> int | None:
    """Mistral's sliding window; transformers takes 4096 where the key is absent, and null for none."""
    window = raw.get("sliding_window", 4096)
    return None if window is None else whole(window, f"{where}: sliding_window", _MOST["max_position_embeddings"])


def _read_rope(raw: dict[str, Any], where: str) -> tuple[Any, Any, dict[str, Any]]:
    """The base of the rotary angles, the kind of their scaling and its settings."""
    written = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(written, dict):
        raise UserError(f"{where}: rope_parameters is {shown(written)}, expected an object {{...}}; {AGAIN}")
    rope = {"rope_theta": raw.get("rope_theta", 10000.0)} | written
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    theta = rope.pop("rope_theta")
    rope.pop("type", None)
    if rope.pop("partial_rotary_factor", 1.0) != 1.0 or kind not in ("default", "llama3"):
        raise UserError(
            f"{where}: rope_type is {shown(kind)} (or rotates a part of each head); we compute only 'default' and "
            "'llama3'"
        )
    return theta, kind, rope
