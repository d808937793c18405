"""Adoption of a byte-level BPE from a Hugging Face folder, with equal ids.

`read` supports tokenizer.json as of GPT-2, Llama 3, Qwen and SmolLM2 and chooses the encoder:
  - tiktoken (`ranks`), where ids follow the merge order, merging by rank uses the listed pair of every
    token (see pipeline.tokenizer.vocabulary), the pre-tokenizer is a known one, and the ids of PROBES are equal;
  - else the tokenizers library (`Library`), equal by construction.
In both, tokens added to the vocabulary (special tokens, control words) are never matched in text; white space that was
added as a token (GPT-NeoX) is text, so it is matched. A normalizer that changes text is refused, except NFC.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import foreign
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown
from pipeline.tokenizer import encoders, vocabulary
from pipeline.tokenizer.checks import require_byte_level, require_tokens
from pipeline.tokenizer.encoders import BytePairs, Library, Normalizer
from pipeline.tokenizer.pretokenizer import recognize

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files of a tokenizer folder that are kept unchanged."""
_ENDS = ("<|endoftext|>", "<|end_of_text|>")

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
    vocab_size: int
    ranks: dict[bytes, int] | None
    pattern: str | None
    normalizer: Normalizer
    content: dict[str, bytes]


def read(folder: Path, sha256: str | None = None) -> Adopted:
    """Reads the vocabulary in `folder`; arguments and errors as of pipeline.tokenizer.adopt."""
    path = folder / FILES[0]
    data = foreign.read_bytes(_existing(path))
    members = [folder / name for name in FILES if os.path.lexists(folder / name)]
    content = {member.name: foreign.read_bytes(foreign.regular(member, folder)) for member in members}
    if sha256 is not None:
        _require_pinned(folder, content, sha256.lower())
    raw = foreign.require_object(foreign.parsed(data, path), path)
    settings = foreign.require_object(
        foreign.parsed(content.get(FILES[1], b"{}"), folder / FILES[1]), folder / FILES[1]
    )
    try:
        return _adopted(raw, settings, content, str(path))
    except UserError:
        raise
    except Exception as error:  # the libraries raise bare Exceptions for unreadable files
        raise not_readable(path, error) from None


def not_readable(path: Path, error: Exception) -> UserError:
    """The error for a tokenizer.json that the library cannot read."""
    return UserError(f"{path}: not a tokenizer.json of the tokenizers library ({shown(error)}); {AGAIN}")


def _adopted(raw: dict[str, Any], settings: dict[str, Any], content: dict[str, bytes], name: str) -> Adopted:
    added = require_tokens(raw, name)
    require_byte_level(raw, name)
    special = {token["content"]: token["id"] for token in added if encoders.is_control(token)}
    end, pad = _roles(settings, special, name)
    normalizer: Normalizer = "NFC" if raw.get("normalizer") else None
    ranks, pattern = _ranks(raw, name), recognize(raw.get("pre_tokenizer"))
    size = max([*raw["model"]["vocab"].values(), *(token["id"] for token in added)]) + 1
    library = Library(content[FILES[0]])  # also where tiktoken encodes: a file that the library cannot read is refused
    if ranks is None or pattern is None or not _equal(library, ranks, pattern, normalizer):
        ranks = pattern = None
    return Adopted(special, end, pad, size, ranks, pattern, normalizer, content)


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


def _ranks(raw: Mapping[str, Any], name: str) -> dict[bytes, int] | None:
    """The vocabulary as ranks, if merging by rank provably equals merging by its listed pairs."""
    if encoders.blanks(raw):
        return None
    try:
        ranks = {vocabulary.unspelled(token): number for token, number in encoders.ordinary(raw).items()}
        listed = [tuple(map(vocabulary.unspelled, pair)) for pair in _pairs(raw["model"]["merges"])]
        order = [ranks[left + right] for left, right in listed]
    except KeyError:
        return None
    if order != sorted(order) or len(set(ranks.values())) != len(ranks):
        return None
    needed = vocabulary.merge_pairs(ranks)
    reached = len(needed) == sum(len(token) > 1 for token in ranks)
    if not set(needed) <= set(listed) or not (reached or raw["model"].get("ignore_merges")):
        return None
    return vocabulary.checked(ranks, name)


def _equal(library: Library, ranks: dict[bytes, int], pattern: str, normalizer: Normalizer) -> bool:
    try:
        ours = BytePairs(ranks, pattern, normalizer).encode(PROBES)
    except ValueError:  # an expression that tiktoken cannot read
        return False
    return all(np.array_equal(a, b) for a, b in zip(ours, library.encode(PROBES), strict=True))


def _roles(settings: Mapping[str, Any], special: Mapping[str, int], name: str) -> tuple[str, str]:
    """The end-of-text token and the padding token."""

    def role(key: str) -> str | None:
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        return text if isinstance(text, str) and text in special else None

    end = next((token for token in _ENDS if token in special), role("eos_token"))
    if end is None:
        raise UserError(
            f"{name}: none of its {len(special)} special tokens ends a text; expected {' or '.join(_ENDS)}, "
            f"or eos_token in {FILES[1]}"
        )
    return end, role("pad_token") or end


def _pairs(merges: Sequence[Any]) -> Iterator[Sequence[str]]:
    for merge in merges:
        yield merge.split(" ") if isinstance(merge, str) else merge
