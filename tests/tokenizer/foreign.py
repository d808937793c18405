"""Small vocabularies of every kind that the tokenizers library has, as their authors would publish them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pipeline.tokenizer.vocabulary import byte_letters

WORDS = (
    "ışık", "gün", "çiğ", "köfte", "İstanbul'da", "they're", "don't", "in", "1923", "12", "345", "yıl;", "böyle...",
    "I'LL", "x=1", "\n\n", "", "\t", "日本語", "👍🏽",
)  # fmt: skip
KINDS = ("wordpiece", "unigram", "byte_fallback", "missing_bytes", "roberta", "prefix_space", "clip", "wordlevel")
MISSING = bytes([0x00, 0x01, 0xC0, 0xC1, 0xE0, *range(0xF5, 0x100)])
"""Bytes without a token in `missing_bytes`; 0x00, 0x01 and 0xE0 (Thai, Hindi) occur in texts."""
AROUND = {
    "wordpiece": (["[CLS]"], ["[SEP]"]),
    "roberta": (["[CLS]"], ["[SEP]"]),
    "unigram": ([], ["</s>"]),
    "byte_fallback": (["<s>"], []),
    "clip": ([], ["<|endoftext|>"]),
}
"""The special tokens that the post-processor puts before and after a text."""
LOSSLESS = ("missing_bytes", "roberta")


def lines(n: int = 300) -> list[str]:
    """Text to train on."""
    draw = random.Random(1)
    return [" ".join(draw.choices(WORDS, k=12)) for _ in range(n)]


def make(kind: str, texts: Sequence[str] = ()) -> tokenizers.Tokenizer:
    """A small vocabulary with the parts of one family, trained on `lines` and some more texts."""
    makers = {
        "wordpiece": _wordpiece,
        "unigram": _unigram,
        "byte_fallback": _byte_fallback,
        "missing_bytes": _missing_bytes,
        "roberta": _roberta,
        "prefix_space": _prefix_space,
        "clip": _clip,
        "wordlevel": _wordlevel,
    }
    return makers[kind]([*lines(), *texts])


def settings(kind: str) -> dict[str, Any]:
    """The roles in tokenizer_config.json."""
    if kind == "wordpiece":
        return {**settings("roberta"), "mask_token": "[MASK]"}
    if kind == "roberta":
        return {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": {"content": "[PAD]"}, "unk_token": "[UNK]"}
    if kind in ("unigram", "byte_fallback"):
        return {"eos_token": {"content": "</s>"}, "pad_token": "<pad>", "unk_token": "<unk>"}
    return {"eos_token": "<|endoftext|>"}


def write(kind: str, folder: Path, texts: Sequence[str] = ()) -> Path:
    """The folder of a vocabulary: tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(make(kind, texts).to_str(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings(kind)), encoding="utf-8")
    return folder


def _train(made: tokenizers.Tokenizer, texts: Sequence[str], trainer: Any) -> tokenizers.Tokenizer:
    made.train_from_iterator(texts, trainer)
    return made


def _around(made: tokenizers.Tokenizer, before: str | None, after: str | None) -> tokenizers.Tokenizer:
    names = [name for name in (before, after) if name]
    single = " ".join(filter(None, [before, "$A", after]))
    made.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[(name, made.token_to_id(name)) for name in names]
    )
    return made


def _wordpiece(texts: Sequence[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _train(made, texts, trainers.WordPieceTrainer(vocab_size=120, special_tokens=names, show_progress=False))
    made.enable_truncation(16)
    made.enable_padding(length=16, pad_id=0, pad_token="[PAD]")
    return _around(made, "[CLS]", "[SEP]")


def _unigram(texts: Sequence[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    names = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=names, unk_token="<unk>", show_progress=False)
    return _around(_train(made, texts, trainer), None, "</s>")


def _byte_fallback(texts: Sequence[str]) -> tokenizers.Tokenizer:
    """As of Gemma and Llama 2: blanks become "▁", letters without a token become bytes, blanks are added tokens."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence(steps)
    names = ["<pad>", "</s>", "<s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names, show_progress=False, limit_alphabet=60)
    _train(made, texts, trainer)
    raw = json.loads(made.to_str())
    raw["added_tokens"] = raw["added_tokens"][:4]  # the bytes are tokens of the model
    made = tokenizers.Tokenizer.from_str(json.dumps(raw))
    made.add_tokens([tokenizers.AddedToken("▁▁", normalized=False), tokenizers.AddedToken("\n\n", normalized=False)])
    return _around(made, "<s>", None)


def _byte_level(
    texts: Sequence[str], size: int, names: list[str], *, add_prefix_space: bool = False, missing: bytes = b""
) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(set(byte_letters()) - {byte_letters()[byte] for byte in missing})
    options = {"special_tokens": names, "initial_alphabet": alphabet, "show_progress": False}
    return _train(made, texts, trainers.BpeTrainer(vocab_size=size, **options))


def _missing_bytes(texts: Sequence[str]) -> tokenizers.Tokenizer:
    """As of SmolLM2: no token for bytes that its training text did not have."""
    return _byte_level(texts, 300, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], missing=MISSING)


def _roberta(texts: Sequence[str]) -> tokenizers.Tokenizer:
    made = _byte_level(texts, 400, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    ends = [(name, made.token_to_id(name)) for name in ("[SEP]", "[CLS]")]
    processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    made.post_processor = processors.Sequence([processors.ByteLevel(), processor])
    return made


def _prefix_space(texts: Sequence[str]) -> tokenizers.Tokenizer:
    return _byte_level(texts, 400, ["<|endoftext|>"], add_prefix_space=True)


def _clip(texts: Sequence[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<|unk|>", end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    names = ["<|unk|>", "<|endoftext|>"]
    options = {"special_tokens": names, "end_of_word_suffix": "</w>", "show_progress": False}
    _train(made, texts, trainers.BpeTrainer(vocab_size=200, **options))
    return _around(made, None, "<|endoftext|>")


def _wordlevel(texts: Sequence[str]) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _train(made, texts, trainers.WordLevelTrainer(vocab_size=30, special_tokens=["<unk>", "<|endoftext|>"]))
