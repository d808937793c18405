"""Names and layouts of tensors in the transformers library, and the mapping to and from our names."""

import torch
from torch import Tensor

from pipeline.model.gpt import GPT

FAMILIES = {
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "arcee": "Arcee",
    "nanochat": "NanoChat",
}
ROOTS = dict.fromkeys(FAMILIES, "model") | {"gpt2": "transformer"}
_ROTARY = {
    "embed": "embed_tokens",
    "blocks": "layers",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "attention": "self_attn",
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "out": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
    "final_norm": "norm",
}
NAMES: dict[str, dict[str, str]] = {
    "gpt2": {
        "embed": "wte",
        "positions": "wpe",
        "blocks": "h",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attention": "attn",
        "qkv": "c_attn",
        "attention.out": "attn.c_proj",
        "up": "c_fc",
        "mlp.down": "mlp.c_proj",
        "final_norm": "ln_f",
    },
    "llama": _ROTARY,
    "mistral": _ROTARY,
    "qwen2": _ROTARY,
    "qwen3": _ROTARY,
    "arcee": _ROTARY,
    "nanochat": _ROTARY | {"up": "fc1", "down": "fc2"},
}


def exported_name(family: str, name: str) -> str:
    """`blocks.0.attention.q` -> `model.layers.0.self_attn.q_proj`; `lm_head` and `score` at the top."""
    if name.split(".")[0] in ("head", "score"):
        return name.replace("head", "lm_head", 1) if name.startswith("head") else name
    return f"{ROOTS[family]}.{_translated(name, NAMES[family])}"


def internal_name(family: str, name: str) -> str:
    """The inverse of `exported_name`; also takes names without the leading `model.` or `transformer.`."""
    if name.startswith("lm_head"):
        return name.replace("lm_head", "head", 1)
    inverse = {theirs: ours for ours, theirs in NAMES[family].items()}
    return _translated(name.removeprefix(f"{ROOTS[family]}."), inverse)


def _translated(name: str, names: dict[str, str]) -> str:
    """Part by part; pairs of parts that have a name of their own (gpt2's two c_proj) come first."""
    parts, translated = name.split("."), []
    while parts:
        pair = ".".join(parts[:2])
        if pair in names:
            translated.append(names[pair])
            parts = parts[2:]
        else:
            translated.append(names.get(parts[0], parts[0]))
            parts = parts[1:]
    return ".".join(translated)


def is_transposed(family: str, name: str) -> bool:
    """Whether transformers stores this weight of ours [in, out] (its Conv1D) and not [out, in]."""
    return (
        family == "gpt2"
        and name.startswith("blocks.")
        and name.endswith(("qkv.weight", "out.weight", "up.weight", "down.weight"))
    )


def exported_tensors(model: GPT) -> dict[str, Tensor]:
    """The tensors of a plain model under transformers' names and in its layouts.

    Raises:
        ValueError: the model still holds an adapter.
    """
    family, own = model.config.family, model.state_dict()
    if odd := sorted(own.keys() - GPT(model.config, None).state_dict().keys() - {"score.weight"}):
        raise ValueError(f"{odd[0]} is no tensor of a plain {family} model; merge the adapter before saving")
    if model.config.tie_embeddings or model.score is not None:
        own.pop("head.weight", None)
    if family == "gpt2" and not model.config.bias:
        for name in [name for name in own if name.startswith(("blocks.", "final_norm")) and name.endswith("weight")]:
            own[name.removesuffix("weight") + "bias"] = torch.zeros(own[name].shape[0])
    return {
        exported_name(family, name): value.T if is_transposed(family, name) else value for name, value in own.items()
    }
