"""A GGUF file as a Hugging Face folder: weights dequantised, config, tokenizer, chat template, and where it is from.

    adopt(Path("model.gguf"), Path("inputs/model"))

The inverse of gguf_format.py for the architectures in gguf_config.py: tensors get transformers' names, rows of
Llama's and Arcee's query and key projections their order in halves again (convert_hf_to_gguf.py of llama.cpp: permute),
GPT-2's projections their layout [in, out]. Weights are written one at a time as float32, or as bfloat16 where asked for
or where every one is exactly that. Settings and tensors that have no place in such a folder are refused by name.
"""

import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline import files
from pipeline.errors import UserError
from pipeline.foreign import shown
from pipeline.model import gguf_config, gguf_header, inspection
from pipeline.model.gguf_header import Header, tensor
from pipeline.model.hf_format import FAMILIES
from pipeline.model.weights import WEIGHTS
from pipeline.tokenizer import gguf_vocabulary

Precision = Literal["float32", "bfloat16"]
_BLOCK = re.compile(r"blk\.(\d+)\.([a-z_]+)\.(weight|bias)$")
_ROTARY = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_GPT2 = {
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
    "attn_norm": "ln_1",
    "ffn_norm": "ln_2",
}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_TOP_GPT2 = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
_INTERLEAVED = ("llama", "arcee")
_PROJECTION = re.compile(r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight$")


@dataclass(frozen=True)
class Adoption:
    """What was made of a GGUF file."""

    folder: Path
    name: str
    licence: str | None
    kinds: Mapping[str, int]
    """Type of a tensor in the file -> number of such tensors."""
    precision: Precision


def adopt(
    path: Path, folder: Path, *, precision: Precision | None = None, done: Callable[[int, int], None] = lambda *_: None
) -> Adoption:
    """Writes the model of a GGUF file as a new Hugging Face folder.

    Args:
        path: of the file.
        folder: to make; it must not exist.
        precision: of the weights; None: bfloat16 where that is exact, else float32.
        done: called after each tensor with the number of those written and of all.

    Raises:
        UserError: a file that is damaged, of another architecture, or has settings, tensors or a vocabulary that a
            folder of transformers cannot express; a folder that exists.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; name another folder, or remove it")
    header = gguf_header.read(path)
    settings = gguf_config.Settings(header)
    tokenizer = gguf_vocabulary.tokenizer_files(header.metadata, str(path))
    names = _names(header, settings)
    config = gguf_config.config(header, settings, names)
    precision = precision or ("bfloat16" if _is_exact(header) else "float32")
    config["dtype"] = precision
    adoption = _summary(header, folder, precision)
    with files.replace_folder(folder) as temporary:
        files.write_json(temporary / "config.json", config)
        files.write_json(temporary / "generation_config.json", gguf_config.generation(header))
        for name, content in tokenizer.items():
            (temporary / name).write_bytes(content)
        files.write_text(temporary / "README.md", _readme(header, adoption, config))
        _write_weights(header, temporary / WEIGHTS, names, config, precision, done)
        if config["model_type"] in FAMILIES:
            inspection.inspect(temporary)
    return adoption


def _summary(header: Header, folder: Path, precision: Precision) -> Adoption:
    named, licence = header.metadata.get("general.name"), header.metadata.get("general.license")
    kinds = Counter(entry.kind for entry in header.tensors.values())
    return Adoption(
        folder,
        named if isinstance(named, str) and named.isprintable() else header.path.stem,
        licence if isinstance(licence, str) and licence.isprintable() and licence else None,
        dict(kinds.most_common()),
        precision,
    )


def _names(header: Header, settings: gguf_config.Settings) -> dict[str, str]:
    """Name in the file -> name in transformers, of every tensor that a folder keeps."""
    gpt2 = settings.architecture == "gpt2"
    block = _GPT2 if gpt2 else _ROTARY
    names = {}
    for name in header.tensors:
        stem, _, ending = name.rpartition(".")
        match = _BLOCK.match(name)
        if match and match[2] in block:
            root = "transformer.h" if gpt2 else "model.layers"
            names[name] = f"{root}.{match[1]}.{block[match[2]]}.{match[3]}"
        elif stem in (_TOP_GPT2 if gpt2 else _TOP):
            names[name] = f"{(_TOP_GPT2 if gpt2 else _TOP)[stem]}.{ending}"
        elif name != "rope_freqs.weight":  # goes into config.json
            raise UserError(
                f"{header.path}: tensor {shown(name)} has no place in a {settings.architecture} model of transformers; "
                "take the model as a Hugging Face folder"
            )
    if "token_embd.weight" not in names:
        raise UserError(f"{header.path}: has no tensor token_embd.weight; {gguf_header.AGAIN}")
    if gpt2 and "output.weight" in names and _is_copy(header, "output.weight", "token_embd.weight"):
        del names["output.weight"]  # llama.cpp's converter stored the tied head again
    return names


def _is_copy(header: Header, first: str, second: str) -> bool:
    return bool(np.array_equal(tensor(header, first), tensor(header, second)))


def _is_exact(header: Header) -> bool:
    """Whether bfloat16 holds every weight exactly: matrices in BF16, and vectors that came from there."""
    if any(entry.kind not in ("BF16", "F32") for entry in header.tensors.values()):
        return False
    floats = [name for name, entry in header.tensors.items() if entry.kind == "F32"]
    return all(not (tensor(header, name).view(np.uint32) & 0xFFFF).any() for name in floats)


def _write_weights(  # noqa: PLR0913 - each is one input of the file
    header: Header,
    path: Path,
    names: Mapping[str, str],
    config: Mapping[str, Any],
    precision: Precision,
    done: Callable[[int, int], None],
) -> None:
    """Writes model.safetensors tensor by tensor, so that memory holds one at a time."""
    size, kind = (2, "BF16") if precision == "bfloat16" else (4, "F32")
    entries, at = {}, 0
    order = sorted(names, key=names.__getitem__)
    for name in order:
        shape = header.tensors[name].shape
        if _is_transposed(config, name):
            shape = shape[::-1]
        end = at + prod(shape) * size
        entries[names[name]] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    written = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(written)) + written)
        for number, values in enumerate(_values(header, order, config), start=1):
            file.write(_stored(values, precision))
            done(number, len(order))


def _values(header: Header, order: list[str], config: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """The tensors in transformers' layout, float32."""
    for name in order:
        values = tensor(header, name)
        part = name.split(".")[-2]
        if header.metadata["general.architecture"] in _INTERLEAVED and part in ("attn_q", "attn_k"):
            heads = config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"]
            if values.shape[0] % (2 * heads):
                raise UserError(
                    f"{header.path}: {name} has {values.shape[0]} rows, which {heads} heads do not divide into halves; "
                    f"{gguf_header.AGAIN}"
                )
            values = _in_halves(values, heads)
        yield values.T if _is_transposed(config, name) else values


def _is_transposed(config: Mapping[str, Any], name: str) -> bool:
    """Whether transformers stores this weight [in, out] (Conv1D of GPT-2)."""
    return config["model_type"] == "gpt2" and bool(_PROJECTION.match(name))


def _in_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection [H K, ...] from pairs (2 i beside 2 i + 1) to halves (feature i beside i + K/2)."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _stored(values: np.ndarray, precision: Precision) -> bytes:
    """The numbers in little-endian order; for bfloat16 rounded to the nearest, ties to even."""
    values = np.ascontiguousarray(values, dtype="<f4")
    if precision == "float32":
        return values.tobytes()
    bits = values.view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return bytes(rounded.astype("<u2").tobytes())


def _readme(header: Header, adoption: Adoption, config: Mapping[str, Any]) -> str:
    """README.md: what the model is, its licence, and that its weights were quantised and how."""
    quantised = {kind: count for kind, count in adoption.kinds.items() if kind not in ("F32", "F16", "BF16")}
    kinds = ", ".join(f"{kind} ({count} tensors)" for kind, count in adoption.kinds.items())
    loss = (
        "Its weights were quantised there and are dequantised here: they differ from the ones that the model was "
        "released with, and its answers may too."
        if quantised
        else "Its weights were not quantised there."
    )
    licence = adoption.licence or "not stated in the file; look it up before the model is used"
    return (
        f"# {adoption.name}\n\n"
        f"Family {config['model_type']}, made by `tohum adopt` from the GGUF file `{header.path.name}` (SHA-256 "
        f"`{files.sha256_of(header.path)}`).\n\n"
        f"- Licence: {licence}\n- Types in the file: {kinds}\n- Weights here: {adoption.precision}\n\n{loss}\n"
    )
