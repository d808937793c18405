"""GGUF files, the format of llama.cpp: a language model or chat model with its vocabulary and chat template, float32.

llama.cpp's own converter recognises a vocabulary by a hash of its output, so it refuses one that was trained here; this
file names the pre-tokenizer itself, where llama.cpp has one that splits every text alike. `gguf` (the library of that
project) gives the tensors' names and writes the file.

Layouts (convert_hf_to_gguf.py of llama.cpp): weights [out, in]; rows of Llama's, Mistral's and Arcee's query and key
projections in the order of interleaved rotary pairs; Llama 3.1's scaling of rotary frequencies as a tensor of divisors.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline import files, foreign
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.adapters import has_additions
from pipeline.model.gpt import GPT
from pipeline.model.hf_format import exported_tensors, internal_name, is_transposed
from pipeline.model.rotary import frequencies
from pipeline.tokenizer import OURS, RANKS, SETTINGS, TOKENIZER, Tokenizer, export, vocabulary
from pipeline.tokenizer.gguf_vocabulary import QWEN2, TEKKEN
from pipeline.tokenizer.pretokenizer import DIGITS_GPT2, PATTERNS

ARCHITECTURES = {
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "arcee": "arcee",
}
"""Family -> llama.cpp's architecture, which has no NanoChat. Mistral is Llama there, without a sliding window: the file
names the window as its context length, within which the two are equal."""
_INTERLEAVED = ("llama", "mistral", "arcee")
# Expression of the pre-tokenizer -> llama.cpp's name of one with equal pieces (llama-vocab.cpp); equal ids on 6,000
# random strings each (python -m tests.bench.llama_cpp).
_PRETOKENIZERS = {
    PATTERNS["gpt2"].tiktoken: "gpt-2",
    PATTERNS["cl100k_base"].tiktoken: "llama-bpe",
    PATTERNS["o200k_base"].tiktoken: "gpt-4o",
    DIGITS_GPT2: "smollm",
    QWEN2: "qwen2",
    TEKKEN: "tekken",
}
_GENERATION = re.compile(r"\{% (end)?generation %\}")
_ALL_FLOAT32 = 0  # general.file_type


def write(folder: Path, target: Path) -> None:
    """Writes the model in `folder` as the file `target`; equal models give equal bytes.

    Raises:
        UserError: no such model, a classifier, an adapter that is not merged, a family, bias or vocabulary that
            llama.cpp does not compute; the text names it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model; one of: {', '.join(sorted(_models(folder.parent))) or 'none yet'}")
    model = checkpoint.load(folder)
    content = foreign.read_object(folder / "tohum.json") if (folder / "tohum.json").is_file() else {}
    task = export.first_task(content)
    if fault := _fault(model, task):
        raise UserError(f"{folder}: cannot be written as GGUF: {fault}")
    pretokenizer = _pretokenizer(folder)
    import gguf

    with files.replacing(target) as temporary:
        writer = gguf.GGUFWriter(temporary, ARCHITECTURES[model.config.family])
        _add_shape(writer, model, folder.name)
        _add_vocabulary(writer, folder, pretokenizer, model.config.vocab_size, task)
        _add_tensors(writer, model)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _models(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob("*/config.json")]


def _fault(model: GPT, task: Mapping[str, Any]) -> str | None:
    """The reason, in words, for which llama.cpp could not compute the model; None without one."""
    config = model.config
    if config.family not in ARCHITECTURES:
        return f"llama.cpp has no family {config.family}; it has {', '.join(ARCHITECTURES)}"
    if task["name"] == "cloze":
        return "a cloze classifier answers by comparing the words of its labels, which no GGUF reader does"
    if model.score is not None:
        return "llama.cpp computes no classification head; use the folder in transformers"
    if has_additions(model):
        return "its prefix, prompt or bottleneck is no part of its weights; use the folder in Tohum"
    if config.family in ("qwen3", "arcee") and (config.bias or config.biased_mlp):
        return f"llama.cpp's {config.family} has no biases; this model has"
    return None


def _pretokenizer(folder: Path) -> str:
    """llama.cpp's name of the pre-tokenizer of the folder's vocabulary."""
    facts = foreign.read_object(folder / OURS)
    name = _PRETOKENIZERS.get(str(facts.get("pattern")))
    # llama.cpp composes no letters, not even for Qwen, whose own tokenizer does: a text of decomposed letters gets
    # other ids there, as in every GGUF file of Qwen
    if name is not None and (facts.get("normalizer") is None or name == "qwen2"):
        return name
    reason = "it composes letters first (NFC), which llama.cpp does not" if name else "llama.cpp has none like it"
    raise UserError(
        f"{folder}: cannot be written as GGUF: no pre-tokenizer of llama.cpp splits every text as this vocabulary's: "
        f"{reason}; those of tokenize.pattern gpt2, cl100k_base and o200k_base and of SmolLM2, Qwen and Mistral Nemo "
        "can be written"
    )


def _add_shape(writer: Any, model: GPT, name: str) -> None:
    config = model.config
    writer.add_name(name)
    writer.add_file_type(_ALL_FLOAT32)
    writer.add_context_length(config.window_within(config.context_length) or config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.family == "gpt2":
        writer.add_layer_norm_eps(config.norm_epsilon)
        return
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)


def _add_vocabulary(writer: Any, folder: Path, pretokenizer: str, size: int, task: Mapping[str, Any]) -> None:
    """Tokens, merges, special tokens and chat template; rows of the embedding without a token are marked unused."""
    import gguf

    tokenizer = Tokenizer.load(folder)
    ranks = vocabulary.parse_ranks((folder / RANKS).read_bytes(), str(folder / RANKS), complete=False)
    names = {rank: vocabulary.spelled(token) for token, rank in ranks.items()}
    names |= {number: text for text, number in tokenizer.special.items()}
    special, kinds = set(tokenizer.special.values()), gguf.TokenType
    writer.add_tokenizer_model("gpt2")  # byte-level BPE
    writer.add_tokenizer_pre(pretokenizer)
    writer.add_token_list([names.get(number, f"[unused {number}]") for number in range(size)])
    writer.add_token_types(
        [
            int(kinds.CONTROL if number in special else kinds.NORMAL if number in names else kinds.UNUSED)
            for number in range(size)
        ]
    )
    merges = json.loads((folder / TOKENIZER).read_bytes())["model"]["merges"]
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in merges])
    input_format = export.describe(tokenizer, task, 1)
    settings = foreign.read_object(folder / SETTINGS)
    begin = settings.get("bos_token")
    writer.add_bos_token_id(tokenizer.special.get(str(begin), tokenizer.end_of_text))
    ends = input_format.ends or (tokenizer.end_of_text,)
    writer.add_eos_token_id(ends[0])
    if len(ends) > 1:  # llama.cpp ends an answer at either
        writer.add_eot_token_id(ends[1])
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_add_bos_token(bool(input_format.before))
    template = settings.get("chat_template")
    if isinstance(template, str):  # the generation block is transformers' own extension of Jinja
        writer.add_chat_template(_GENERATION.sub("", template))


def _add_tensors(writer: Any, model: GPT) -> None:
    """The weights in the order of their names; a tied head is left out."""
    import gguf

    config = model.config
    architecture = next(
        number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[config.family]
    )
    names = gguf.get_tensor_name_map(architecture, config.n_layers)
    tensors: dict[str, Tensor] = {}
    for exported, value in exported_tensors(model).items():
        ours = internal_name(config.family, exported)
        weight = value.T if is_transposed(config.family, ours) else value
        if config.family in _INTERLEAVED and re.search(r"attention\.[qk]\.", ours):
            weight = _interleaved(weight, config.n_heads if ".q." in ours else config.n_kv_heads)
        name = names.get_name(exported, try_suffixes=(".weight", ".bias"))
        assert name is not None, f"{exported} has no name in GGUF's {ARCHITECTURES[config.family]}"
        tensors[name] = weight
    if config.rope_scaling is not None:
        plain = config.model_copy(update={"rope_scaling": None})
        device = model.embed.weight.device
        tensors["rope_freqs.weight"] = frequencies(plain, device) / frequencies(config, device)
    for name in sorted(tensors):
        writer.add_tensor(name, tensors[name].detach().float().contiguous().cpu().numpy())


def _interleaved(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of a projection [H K, ...] from halves (feature i beside i + K/2) to pairs (2 i beside 2 i + 1)."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)
