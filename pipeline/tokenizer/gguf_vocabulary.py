r"""The tokenizer of a GGUF file as files of a Hugging Face folder: tokenizer.json and tokenizer_config.json.

    tokenizer_files(metadata, "model.gguf")  ->  {"tokenizer.json": ..., "tokenizer_config.json": ...}

A GGUF file lists tokens, their types, and merges (byte-level BPE) or scores (SentencePiece BPE), and names its
pre-tokenizer; llama.cpp has the expressions of those in llama-vocab.cpp. Two kinds are rebuilt:
  - `gpt2`, byte-level BPE, with the pre-tokenizers in `_PRETOKENIZERS`; others are refused by name;
  - `llama`, SentencePiece BPE with byte fallback: merges follow from the scores, as in transformers' converter.
Qwen's own tokenizer.json composes letters first (NFC), which llama.cpp leaves out: here they are composed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UserError
from pipeline.foreign import shown, whole
from pipeline.tokenizer import vocabulary
from pipeline.tokenizer.pretokenizer import PATTERNS

UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 2, 3, 4, 5, 6
"""Token types of GGUF (gguf.TokenType)."""
_MOST_TOKENS = 1 << 22
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _split(expression: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTE_LEVEL | {"use_regex": False}]}


_DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]}
# llama.cpp's name (tokenizer.ggml.pre) -> pre_tokenizer of tokenizer.json, and whether a piece that is a token is
# looked up before merging (ignore_merges).
_PRETOKENIZERS: dict[str, tuple[dict[str, Any], bool]] = {
    "gpt-2": (_BYTE_LEVEL, False),
    "smollm": (_DIGITS, False),
    "starcoder": (_DIGITS, False),
    "llama-bpe": (_split(PATTERNS["cl100k_base"].huggingface), True),
    "llama3": (_split(PATTERNS["cl100k_base"].huggingface), True),
    "qwen2": (_split(QWEN2), False),
    "deepseek-r1-qwen": (_split(QWEN2), False),
    "gpt-4o": (_split(PATTERNS["o200k_base"].huggingface), True),
    "tekken": (_split(TEKKEN), True),
}
_COMPOSED = ("qwen2", "deepseek-r1-qwen")
_BEGINS_TEXT = ("llama-bpe", "llama3", "tekken")
"""Pre-tokenizers with which llama.cpp puts bos before a text where the file does not say."""
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def tokenizer_files(metadata: Mapping[str, Any], name: str) -> dict[str, bytes]:
    """File name -> content.

    Args:
        metadata: of the GGUF file.
        name: of the file, for errors.

    Raises:
        UserError: no tokenizer, another kind or pre-tokenizer, a list of another length than the tokens.
    """
    tokens, types = token_list(metadata, name)
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        model, steps, starts = _byte_level(metadata, tokens, types, name)
    elif kind == "llama":
        model, steps, starts = _sentencepiece(metadata, tokens, types, name)
    else:
        raise UserError(
            f"{name}: tokenizer.ggml.model is {shown(kind)}; expected gpt2 (byte-level BPE) or llama (SentencePiece "
            "BPE); take the model as a Hugging Face folder"
        )
    roles = _roles(metadata, tokens, name)
    around = _around(metadata, roles, starts=starts)
    raw = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, types, roles),
        "post_processor": _post_processor(around, tokens, roles),
        "model": model,
        **steps,
    }
    return {
        "tokenizer.json": vocabulary.to_json(raw),
        "tokenizer_config.json": vocabulary.to_json(_settings(metadata, roles, around)),
    }


def token_list(metadata: Mapping[str, Any], name: str) -> tuple[list[str], list[int]]:
    """The tokens in the order of their ids, and their types; errors as of `tokenizer_files`."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{name}: tokenizer.ggml.tokens is {shown(tokens)}, expected a list of tokens")
    if len(tokens) > _MOST_TOKENS:
        raise UserError(f"{name}: has {len(tokens):,} tokens, expected at most {_MOST_TOKENS:,}")
    types = metadata.get("tokenizer.ggml.token_type", [1] * len(tokens))
    _require_list(types, int, len(tokens), f"{name}: tokenizer.ggml.token_type")
    return tokens, types


def _require_list(values: Any, kind: type, length: int | None, where: str) -> None:
    fits = isinstance(values, list) and all(isinstance(value, kind) for value in values)
    if not fits or length not in (None, len(values)):
        expected = "a list" if length is None else f"one {kind.__name__} for each of the {length:,} tokens"
        raise UserError(f"{where} is {shown(values)}, expected {expected}")


def _vocab(tokens: Sequence[str], types: Sequence[int], name: str) -> dict[str, int]:
    """Token -> id without unused ones, with which llama.cpp fills rows of the embedding that have no token."""
    vocab: dict[str, int] = {}
    for number, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind == UNUSED or not token:
            continue
        if token in vocab:
            raise UserError(f"{name}: tokens {vocab[token]} and {number} are both {shown(token)}")
        vocab[token] = number
    return vocab


def _byte_level(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], name: str
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Model, other steps, and whether llama.cpp begins a text with bos by default."""
    pre = metadata.get("tokenizer.ggml.pre")
    if pre not in _PRETOKENIZERS:
        raise UserError(
            f"{name}: tokenizer.ggml.pre is {shown(pre)}, a pre-tokenizer whose expression is not known here; known: "
            f"{', '.join(_PRETOKENIZERS)}; take the model as a Hugging Face folder, which has its tokenizer.json"
        )
    merges = metadata.get("tokenizer.ggml.merges")
    _require_list(merges, str, None, f"{name}: tokenizer.ggml.merges")
    pairs = [_pair(merge, name) for merge in merges or ()]
    split, whole_first = _PRETOKENIZERS[str(pre)]
    model = _bpe(_vocab(tokens, types, name), pairs) | {"ignore_merges": whole_first}
    normalizer = {"type": "NFC"} if pre in _COMPOSED else None
    return model, {"normalizer": normalizer, "pre_tokenizer": split, "decoder": _BYTE_LEVEL}, pre in _BEGINS_TEXT


def _pair(merge: str, name: str) -> list[str]:
    """The two tokens of a merge; the blank between them is never a token's first character."""
    left, blank, right = merge[:1] + merge[1:].partition(" ")[0], *merge[1:].partition(" ")[1:]
    if not left or not blank or not right:
        raise UserError(f"{name}: tokenizer.ggml.merges has {shown(merge)}, expected two tokens and a blank")
    return [left, right]


def _bpe(vocab: Mapping[str, int], merges: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": dict(vocab),
        "merges": [list(pair) for pair in merges],
    }


def _sentencepiece(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], name: str
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """As `_byte_level`; a word begins with "▁", and a character without a token becomes its bytes."""
    scores = metadata.get("tokenizer.ggml.scores")
    _require_list(scores, float, len(tokens), f"{name}: tokenizer.ggml.scores")
    vocab = _vocab(tokens, types, name)
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    model = _bpe(vocab, _merges(types, scores or (), vocab))
    model |= {"byte_fallback": True, "fuse_unk": True, "unk_token": unknown, "ignore_merges": False}
    opens = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    before = [{"type": "Prepend", "prepend": "▁"}, replace] if opens else [replace]
    after: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if opens:
        after.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    steps = {
        "normalizer": {"type": "Sequence", "normalizers": before},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": after},
    }
    return model, steps, True


def _merges(types: Sequence[int], scores: Sequence[float], vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each token, the best score first, as `generate_merges` of transformers orders them."""
    plain = {token: number for token, number in vocab.items() if types[number] not in (CONTROL, UNKNOWN, BYTE)}
    merges = []
    for token, number in plain.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        inside = [pair for pair in pairs if pair[0] in plain and pair[1] in plain]
        merges += [
            (scores[number], *pair) for pair in sorted(inside, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        ]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in merges]


def _roles(metadata: Mapping[str, Any], tokens: Sequence[str], name: str) -> dict[str, int]:
    """bos_token, eos_token, ... -> id, where the file has them."""
    roles = {}
    for role, key in _ROLES.items():
        number = metadata.get(f"tokenizer.ggml.{key}")
        if number is not None:
            roles[role] = whole(number, f"{name}: tokenizer.ggml.{key}", len(tokens) - 1, 0)
    return roles


def _around(metadata: Mapping[str, Any], roles: Mapping[str, int], *, starts: bool) -> dict[str, bool]:
    """Whether bos is put before a text and eos after it."""
    begins = bool(metadata.get("tokenizer.ggml.add_bos_token", starts))
    ends = bool(metadata.get("tokenizer.ggml.add_eos_token", False))
    return {"bos_token": begins and "bos_token" in roles, "eos_token": ends and "eos_token" in roles}


def _added(tokens: Sequence[str], types: Sequence[int], roles: Mapping[str, int]) -> list[dict[str, Any]]:
    special = {*roles.values(), *(number for number, kind in enumerate(types) if kind in (CONTROL, UNKNOWN))}
    words = {number for number, kind in enumerate(types) if kind == USER_DEFINED}
    return [
        vocabulary.added_token(tokens[number], number) | {"special": number in special}
        for number in sorted(special | words)
        if tokens[number]
    ]


def _post_processor(
    around: Mapping[str, bool], tokens: Sequence[str], roles: Mapping[str, int]
) -> dict[str, Any] | None:
    if not any(around.values()):
        return None
    used = {role: tokens[roles[role]] for role, put in around.items() if put}

    def pieces(*texts: str) -> list[dict[str, Any]]:
        inner: list[dict[str, Any]] = [{"Sequence": {"id": text, "type_id": 0}} for text in texts]
        ends = {role: [{"SpecialToken": {"id": token, "type_id": 0}}] for role, token in used.items()}
        return [*ends.get("bos_token", []), *inner, *ends.get("eos_token", [])]

    special = {token: {"id": token, "ids": [roles[role]], "tokens": [token]} for role, token in used.items()}
    return {"type": "TemplateProcessing", "single": pieces("A"), "pair": pieces("A", "B"), "special_tokens": special}


def _settings(metadata: Mapping[str, Any], roles: Mapping[str, int], around: Mapping[str, bool]) -> dict[str, Any]:
    tokens = metadata["tokenizer.ggml.tokens"]
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": around["bos_token"],
        "add_eos_token": around["eos_token"],
        **{role: tokens[number] for role, number in roles.items()},
    }
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    return settings
