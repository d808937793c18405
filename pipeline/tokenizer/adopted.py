"""Adoption of any vocabulary of the tokenizers library from a Hugging Face folder, with equal ids.

`read` chooses the encoder of a tokenizer.json:
  - tiktoken (`ranks`), for a byte-level BPE as of GPT-2, Llama 3, Qwen and SmolLM2 whose ids follow the merge order,
    where merging by rank uses the listed pair of every token (see pipeline.tokenizer.vocabulary), the pre-tokenizer is
    a known one, and the ids of PROBES are equal;
  - else the tokenizers library (pipeline.tokenizer.library), whose ids of PROBES are compared too.
In both, tokens added to the vocabulary (special tokens, control words) are never matched in text; white space that was
added as a token (GPT-NeoX) is text, so it is matched. The tokens that the folder's post-processor puts around a text
are read by encoding one (`text_prefix`, `text_suffix`).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import foreign
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown
from pipeline.tokenizer import library, vocabulary
from pipeline.tokenizer.checks import require_tokens
from pipeline.tokenizer.encoders import BytePairs, Encoder, Normalizer, UnencodableError, missing_bytes
from pipeline.tokenizer.library import Library
from pipeline.tokenizer.pretokenizer import flat, recognize

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files of a tokenizer folder that are kept unchanged."""
_ENDS = ("<|endoftext|>", "<|end_of_text|>")
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

# Texts for which pre-tokenizers and merges are known to differ: contractions, digits, blanks, line ends, marks,
# scripts, emoji.
PROBES = (
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "\n",
    "\r\n",
    "\t",
    " \n ",
    "a\n",
    "a \n\n b",
    "   a",
    "a   ",
    "\n\n\n\n",
    "a\r\rb",
    "Hello, world! It's we'LL 'S 'x I'd've DON'T they'RE 's's ''s",
    "'ſ 'ſt Kelvin \u212a",
    "x=1;y = 2\nfor i in range(10):\n\tprint(i)\n",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 ½ ² Ⅷ ٣٤٥ १२३ 1 2  3   4",
    "  12  34 \n 5",
    "1a2b 3c",
    "a1 b22 c333",
    "İstanbul'da ışıl ışıl bir gün; çiğ köfte yedik. I İ ı i Ğ ğ Ş ş Ç ç Ö ö Ü ü Â â ŞIĞÜÖÇ",
    "c\u0327ig\u0306 ko\u0308fte I\u0307stanbul e\u0301 !\u0301 \u0301a",
    "Ĳ ǅ ß ẞ ﬁ Å Å ｆｕｌｌ",
    "日本語の文章。中文句子，没有空格。한국어 문장 ไทย",
    "👍 👩‍👩‍👧‍👦 🏳️‍🌈 🇹🇷 a👍b ❤️",
    "... !!! ?!?! --- ___ *** /* */ // \\n {}[]() <>=!= a/b//c http://x.y/z?q=1&r=2#s",
    "!\n\n? \n.\r\n/\n/",
    "<|endoftext|> <|pad|><|user|>x<|im_start|>y</s><s><think>z</think>[INST] <|eot_id|>",
    "\u00a0a\u2003b\u3000c\u2028d\u0085e\u200bf\ufeffg",
    "\x00\x01\x1f\x7f\x80 \ufffd \ue000 \U0010ffff \u0378",
    "a" * 70 + " " * 70 + "\n" * 9 + "1" * 33 + "." * 40,
    "aaaa bbbbb abababab \n \n \n",
    "CamelCaseHTTPServer snake_case kebab-case UPPER lower Title don’t l’été rock'n'roll",
)


@dataclass(frozen=True)
class Adopted:
    """A folder's vocabulary; `ranks` and `pattern` are None where only the library gives equal ids."""

    special: dict[str, int]
    end_of_text: str
    pad: str
    text_prefix: tuple[int, ...]
    text_suffix: tuple[int, ...]
    vocab_size: int
    ranks: dict[bytes, int] | None
    pattern: str | None
    normalizer: Normalizer
    content: dict[str, bytes]


def read(folder: Path, sha256: str | None = None) -> Adopted:
    """Reads the vocabulary in `folder`; arguments and errors as of pipeline.tokenizer.adopt."""
    path = folder / FILES[0]
    _existing(path)
    members = [folder / name for name in FILES if os.path.lexists(folder / name)]
    content = {member.name: foreign.read_bytes(foreign.regular(member, folder)) for member in members}
    if sha256 is not None:
        _require_pinned(folder, content, sha256.lower())
    return of_content(content, str(path))


def of_content(content: dict[str, bytes], name: str) -> Adopted:
    """The vocabulary in the files of a folder; `name`: of its tokenizer.json, for errors. Raises UserError."""
    path = Path(name)
    raw = foreign.require_object(foreign.parsed(content[FILES[0]], path), path)
    settings = _settings(content, path.parent)
    try:
        return _adopted(raw, settings, content, name)
    except UserError:
        raise
    except Exception as error:  # the libraries raise bare Exceptions for unreadable files
        raise not_readable(path, error) from None


def not_readable(path: Path, error: Exception) -> UserError:
    """The error for a tokenizer.json that the library cannot read."""
    return UserError(f"{path}: not a tokenizer.json of the tokenizers library ({shown(error)}); {AGAIN}")


def _settings(content: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    """special_tokens_map.json under tokenizer_config.json, which overrules it."""
    read = [
        foreign.require_object(foreign.parsed(content.get(name, b"{}"), folder / name), folder / name)
        for name in (FILES[2], FILES[1])
    ]
    return read[0] | {key: value for key, value in read[1].items() if value is not None}


def _adopted(raw: dict[str, Any], settings: dict[str, Any], content: dict[str, bytes], name: str) -> Adopted:
    added = require_tokens(raw, name)
    whole = as_published(content[FILES[0]])
    special = {token["content"]: token["id"] for token in added if library.is_control(token)}
    special |= _named(settings, whole, special)
    prefix, suffix = _around(whole)
    end, pad = _roles(settings, special, suffix, name)
    encoder = Library(content[FILES[0]], special, [special[end]])
    if encoder.unknown == special[pad]:
        pad = end  # unknown text would be padding
    _require_equal_ids(encoder, whole, raw, set(special.values()), name)
    normalizer: Normalizer = "NFC" if raw.get("normalizer") else None
    ranks, pattern = _ranks(raw, special, name), recognize(raw.get("pre_tokenizer"))
    size = max([*encoder.table(), *(token["id"] for token in added)]) + 1
    if ranks is None or pattern is None or not _equal(encoder, ranks, pattern, normalizer):
        ranks = pattern = None
    return Adopted(special, end, pad, prefix, suffix, size, ranks, pattern, normalizer, content)


def as_published(data: bytes) -> Any:
    """The vocabulary as the tokenizers library reads it, without limits of length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _named(settings: Mapping[str, Any], whole: Any, special: Mapping[str, int]) -> dict[str, int]:
    """Special tokens that only the settings name; transformers matches them in text as it does added tokens."""
    listed = settings.get("additional_special_tokens")
    values = [settings.get(key) for key in _ROLES] + (listed if isinstance(listed, list) else [])
    texts = [text for value in values if (text := text_of(value)) and text not in special]
    return {text: number for text in texts if (number := whole.token_to_id(text)) is not None}


def text_of(value: Any) -> str | None:
    """The text of a token that is written as itself or as an object with its flags."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _around(whole: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after one text."""
    for text in ("a", "1", " a", "."):
        bare = list(whole.encode(text, add_special_tokens=False).ids)
        around = list(whole.encode(text).ids)
        for at in range(len(around) - len(bare) + 1):
            if bare and around[at : at + len(bare)] == bare:
                return tuple(around[:at]), tuple(around[at + len(bare) :])
    return (), ()


def _require_equal_ids(encoder: Library, whole: Any, raw: Mapping[str, Any], special: set[int], name: str) -> None:
    """Raises UserError where a probe has other ids than the library gives, naming the parts of the vocabulary."""
    compared, fault = 0, ""
    for text in PROBES:
        theirs = list(whole.encode(text, add_special_tokens=False).ids)
        if special & (set(theirs) - {encoder.unknown}):
            continue  # the text spells a special token, which is not matched here
        compared += bool(theirs)
        try:
            ours = encoder.encode([text])[0].tolist()
        except UnencodableError:
            continue
        if ours != theirs and not fault:
            at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(theirs))
            ids = f"{ours[at : at + 5]} here and {theirs[at : at + 5]} in the tokenizers library"
            fault = f"{text[:30]!r} has from its token {at} on the ids {ids}"
    if not compared:
        fault = "every text has one of its special tokens"
    if fault:
        steps = ", ".join(str(step["type"]) for step in flat(raw.get("pre_tokenizer"))) or "none"
        raise UserError(
            f"{name}: cannot be adopted with equal ids: {fault} (model {library.kind_of(raw['model'])}, pre_tokenizer "
            f"{steps}, normalizer {(raw.get('normalizer') or {}).get('type', 'none')}); use another model's vocabulary"
        )


def pin(path: Path) -> str:
    """The `tokenize.sha256` of a file, or of the files of a folder that determine its vocabulary."""
    if not path.is_dir():
        return sha256_hex(foreign.read_bytes(_existing(path)))
    members = [path / name for name in FILES if os.path.lexists(path / name)]
    contents = {member.name: foreign.read_bytes(foreign.regular(member, path)) for member in members}
    return foreign.pin({name: sha256_hex(data) for name, data in contents.items()})


def _require_pinned(folder: Path, content: Mapping[str, bytes], pinned: str) -> None:
    """Raises UserError unless the files of the vocabulary have the pinned hash."""
    hashes = {name: sha256_hex(data) for name, data in content.items()}
    actual = foreign.pin(hashes)
    if actual == pinned:
        return
    if pinned == hashes[FILES[0]]:
        raise UserError(
            f"{folder}: params.yaml: tokenize.sha256 is the hash of {FILES[0]} alone, and "
            f"{', '.join(list(hashes)[1:])} decide the text too; if you trust these {len(hashes)} files, write {actual}"
        )
    raise UserError(
        f"{folder}: sha256 of {', '.join(hashes)} is {actual}, params.yaml: tokenize.sha256 is {pinned}; restore the "
        "files, or correct tokenize.sha256"
    )


def with_tokens(data: bytes, special: Mapping[str, int]) -> bytes:
    """tokenizer.json with the missing ones of the special tokens added."""
    raw = json.loads(data)
    known = {token["content"] for token in raw.get("added_tokens") or []}
    new = [vocabulary.added_token(text, number) for text, number in special.items() if text not in known]
    raw["added_tokens"] = [*(raw.get("added_tokens") or []), *new]
    return vocabulary.to_json(raw)


def read_checked(path: Path, sha256: str | None) -> bytes:
    """The bytes of a file. Raises UserError where its hash is not `sha256` (None: any)."""
    data = foreign.read_bytes(_existing(path))
    if sha256 is not None and sha256_hex(data) != sha256.lower():
        raise UserError(
            f"{path}: sha256 is {sha256_hex(data)}, params.yaml: tokenize.sha256 is {sha256}; restore the file, "
            "or correct tokenize.sha256"
        )
    return data


def _existing(path: Path) -> Path:
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file; correct tokenize.path")
    return path


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _ranks(raw: Mapping[str, Any], special: Mapping[str, int], name: str) -> dict[bytes, int] | None:
    """The vocabulary as ranks, if merging by rank provably equals merging by its listed pairs."""
    if library.blanks(raw) or library.byte_table(raw, special) is None:
        return None
    try:
        tokens = library.ordinary(raw, special)
        ranks = {vocabulary.unspelled(token): number for token, number in tokens.items()}
        merges = vocabulary.merge_halves(raw["model"]["merges"])
        listed = [(vocabulary.unspelled(left), vocabulary.unspelled(right)) for left, right in merges]
        order = [ranks[left + right] for left, right in listed]
    except KeyError:
        return None
    if order != sorted(order) or len(set(ranks.values())) != len(ranks):
        return None
    missing = set(missing_bytes(ranks))
    if missing and any(missing.intersection(token) for token in ranks):
        return None  # such a token may encode a missing byte, and tiktoken panics on others
    needed = vocabulary.merge_pairs(ranks)
    reached = len(needed) == sum(len(token) > 1 for token in ranks)
    if not set(needed) <= set(listed) or not (reached or raw["model"].get("ignore_merges")):
        return None
    return vocabulary.checked(ranks, name, complete=False)


def _equal(encoder: Library, ranks: dict[bytes, int], pattern: str, normalizer: Normalizer) -> bool:
    """Whether tiktoken gives the library's ids of all probes that have ids."""
    try:
        ours = BytePairs(ranks, pattern, normalizer)
    except ValueError:  # an expression that tiktoken cannot read
        return False
    return all(np.array_equal(_ids(ours, text), _ids(encoder, text)) for text in PROBES)


def _ids(encoder: Encoder, text: str) -> np.ndarray:
    """The ids of a text; none where it has no encoding."""
    try:
        return encoder.encode([text])[0]
    except UnencodableError:
        return np.empty(0, np.uint32)


def _roles(
    settings: Mapping[str, Any], special: Mapping[str, int], suffix: tuple[int, ...], name: str
) -> tuple[str, str]:
    """The end-of-text token and the padding token.

    The end is that of our own list, else eos_token, else sep_token, else the last token that the post-processor puts
    after a text.
    """

    def role(key: str) -> str | None:
        text = text_of(settings.get(key))
        return text if text in special else None

    last = [text for text, number in special.items() if suffix and number == suffix[-1]]
    ends = [*(token for token in _ENDS if token in special), role("eos_token"), role("sep_token"), *last]
    end = next((token for token in ends if token is not None), None)
    if end is None:
        raise UserError(
            f"{name}: none of its {len(special)} special tokens ends a text; expected {' or '.join(_ENDS)}, or "
            f"eos_token or sep_token in {FILES[1]} or {FILES[2]}"
        )
    return end, role("pad_token") or end
