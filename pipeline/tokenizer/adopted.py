"""A byte-level BPE from a Hugging Face folder, taken over with equal ids.

`read` understands tokenizer.json of the GPT-2, Llama 3, Qwen and SmolLM2 kinds and says how to encode:
  - by tiktoken (`ranks`), when ids follow the merge order, the listed pair of every token is the one that
    merging by rank uses (see pipeline.tokenizer.vocabulary), the pre-tokenizer is a known one, and a set of tricky
    texts gives equal ids;
  - else by the tokenizers library itself (`Library`), equal by construction.
In both, tokens added to the vocabulary (special tokens, control words) are never matched in text; white space
that was added as a token (GPT-NeoX) is text, so it is matched. What alters text before encoding is refused,
except NFC.
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
from pipeline.foreign import AGAIN, shown, whole
from pipeline.tokenizer import encoders, vocabulary
from pipeline.tokenizer.encoders import BytePairs, Library, Normalizer
from pipeline.tokenizer.pretokenizer import flat, recognize

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
"""Files of a vocabulary's folder that are kept as they are."""
MOST_IDS = 1 << 24
"""Ids are below this; the largest published vocabularies have a few hundred thousand."""
_ENDS = ("<|endoftext|>", "<|end_of_text|>")

# Where pre-tokenizers and merges are known to differ: contractions, digits, blanks, line ends, marks,
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
    """What a folder's vocabulary is; `ranks` and `pattern` are null when only the library gives equal ids."""

    special: dict[str, int]
    end_of_text: str
    pad: str
    vocab_size: int
    ranks: dict[bytes, int] | None
    pattern: str | None
    normalizer: Normalizer
    content: dict[str, bytes]


def read(folder: Path, sha256: str | None = None) -> Adopted:
    """What stands in `folder`; see pipeline.tokenizer.adopt, which explains the arguments and errors."""
    path = folder / FILES[0]
    data = foreign.read_bytes(_there(path))
    members = [folder / name for name in FILES if os.path.lexists(folder / name)]
    content = {one.name: foreign.read_bytes(foreign.regular(one, folder)) for one in members}
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
    except Exception as error:  # the libraries raise bare Exceptions for what they cannot read
        raise not_readable(path, error) from None


def not_readable(path: Path, error: Exception) -> UserError:
    """The error for a tokenizer.json that only looks like one."""
    return UserError(f"{path}: not a tokenizer.json of the tokenizers library ({shown(error)}); {AGAIN}")


def _adopted(raw: dict[str, Any], settings: dict[str, Any], content: dict[str, bytes], name: str) -> Adopted:
    added = _require_tokens(raw, name)
    _require_byte_level(raw, name)
    special = {token["content"]: token["id"] for token in added if encoders.is_control(token)}
    end, pad = _roles(settings, special, name)
    normalizer: Normalizer = "NFC" if raw.get("normalizer") else None
    ranks, pattern = _ranks(raw, name), recognize(raw.get("pre_tokenizer"))
    size = max([*raw["model"]["vocab"].values(), *(token["id"] for token in added)]) + 1
    library = Library(content[FILES[0]])  # also where tiktoken encodes: a file that no library reads is refused
    if ranks is None or pattern is None or not _equal(library, ranks, pattern, normalizer):
        ranks = pattern = None
    return Adopted(special, end, pad, size, ranks, pattern, normalizer, content)


def _require_tokens(raw: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The added tokens in the order of their ids, after a look at the form of those and of the vocabulary."""
    model, added = raw.get("model"), raw.get("added_tokens") or []
    for key, kind in (("model", dict), ("added_tokens", list), ("pre_tokenizer", dict), ("normalizer", dict)):
        value = raw.get(key)
        if not isinstance(value, kind) and (value is not None or key == "model"):
            raise UserError(
                f"{name}: not a tokenizer.json of the tokenizers library: {key} is {shown(value)}, expected "
                f"{'a list' if kind is list else 'an object'}; {AGAIN}"
            )
    assert isinstance(model, dict)
    if model.get("type") != "BPE":
        return []  # refused with its kind
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        raise UserError(f"{name}: model.vocab is {shown(vocab)}, expected an object {{token: id}}; {AGAIN}")
    for token, number in vocab.items():
        whole(number, f"{name}: model.vocab: the id of {shown(token)}", MOST_IDS - 1, 0)
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise UserError(f"{name}: model.merges is {shown(merges)}, expected a list of pairs; {AGAIN}")
    for merge in merges:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) and one for one in pair):
            raise UserError(f"{name}: model.merges has {shown(merge)}, expected two tokens; {AGAIN}")
    known: dict[int, str] = {}
    for token in added:
        if not isinstance(token, dict) or not isinstance(token.get("content"), str) or not token["content"]:
            raise UserError(f"{name}: added_tokens has {shown(token)}, expected content and id; {AGAIN}")
        number = whole(token.get("id"), f"{name}: added_tokens: the id of {shown(token['content'])}", MOST_IDS - 1, 0)
        if known.setdefault(number, token["content"]) != token["content"]:
            raise UserError(
                f"{name}: id {number} is that of {shown(token['content'])} and {shown(known[number])}; {AGAIN}"
            )
    clash = {number: token for token, number in vocab.items() if known.get(number, token) != token}
    for number, token in clash.items():
        raise UserError(f"{name}: id {number} is that of {shown(token)} and {shown(known[number])}; {AGAIN}")
    return sorted(added, key=lambda token: token["id"])


def pin(path: Path) -> str:
    """What `tokenize.sha256` says of a file, or of the files of a folder that decide its vocabulary."""
    if not path.is_dir():
        return sha256_hex(foreign.read_bytes(_there(path)))
    members = [path / name for name in FILES if os.path.lexists(path / name)]
    return foreign.pin({one.name: sha256_hex(foreign.read_bytes(foreign.regular(one, path))) for one in members})


def _require_pinned(folder: Path, content: Mapping[str, bytes], pinned: str) -> None:
    """Raises UserError unless the files of the vocabulary have the pinned hash."""
    hashes = {name: sha256_hex(data) for name, data in content.items()}
    found = foreign.pin(hashes)
    if found == pinned:
        return
    if pinned == hashes[FILES[0]]:
        raise UserError(
            f"{folder}: params.yaml: tokenize.sha256 is the hash of {FILES[0]} alone, and "
            f"{', '.join(list(hashes)[1:])} decide the text too; if you trust these {len(hashes)} files, write {found}"
        )
    raise UserError(
        f"{folder}: sha256 of {', '.join(hashes)} is {found}, params.yaml: tokenize.sha256 is {pinned}; take the files "
        "that were meant, or correct the params"
    )


def with_tokens(data: bytes, special: Mapping[str, int]) -> bytes:
    """tokenizer.json with those special tokens added that it lacks."""
    raw = json.loads(data)
    known = {token["content"] for token in raw.get("added_tokens") or []}
    new = [vocabulary.added_token(text, number) for text, number in special.items() if text not in known]
    raw["added_tokens"] = [*(raw.get("added_tokens") or []), *new]
    return vocabulary.to_json(raw)


def read_checked(path: Path, sha256: str | None) -> bytes:
    """The bytes of a file, if its hash is `sha256` (null: any); else UserError naming both."""
    data = foreign.read_bytes(_there(path))
    if sha256 is not None and sha256_hex(data) != sha256.lower():
        raise UserError(
            f"{path}: sha256 is {sha256_hex(data)}, params.yaml: tokenize.sha256 is {sha256}; take the file "
            "that was meant, or correct the params"
        )
    return data


def _there(path: Path) -> Path:
    if not os.path.lexists(path):
        raise UserError(f"{path}: no such file; set tokenize.path to where it is")
    return path


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _require_byte_level(raw: Mapping[str, Any], name: str) -> None:
    """Raises UserError for a tokenizer.json that is no byte-level BPE or alters text."""
    model, steps = raw["model"], flat(raw.get("pre_tokenizer"))
    normalizer = raw.get("normalizer") or {}
    inner = normalizer.get("normalizers", [normalizer]) if normalizer else []
    reasons = [
        (model.get("type") == "BPE", f"model.type is {model.get('type')}, expected BPE"),
        (not model.get("byte_fallback"), "it falls back to bytes, as SentencePiece does"),
        (not model.get("dropout"), "it has dropout, so ids change from call to call"),
        (not model.get("continuing_subword_prefix"), "it marks parts of words"),
        (not model.get("end_of_word_suffix"), "it marks ends of words"),
        (any(step["type"] == "ByteLevel" for step in steps), "its pre_tokenizer has no ByteLevel step"),
        (not any(step.get("add_prefix_space") for step in steps), "add_prefix_space alters the text"),
        (all(step.get("type") == "NFC" for step in inner), f"its normalizer changes text: {inner}"),
    ]
    found = [reason for fine, reason in reasons if not fine]
    letters = set(vocabulary.byte_letters()) if not found else set()
    strange = [] if found else [token for token in encoders.ordinary(raw) if not letters.issuperset(token)]
    if strange:
        found.append(f"token {strange[0]!r} has characters that stand for no byte")
    if not found and (missing := [letter for letter in sorted(letters) if letter not in model["vocab"]]):
        found.append(f"{len(missing)} of the 256 bytes have no token, so not every text could be encoded")
    if found:
        raise UserError(
            f"{name}: cannot be adopted with equal ids: {'; '.join(found)}; expected a byte-level BPE as of "
            "GPT-2, Llama 3, Qwen or SmolLM2"
        )


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
    """The tokens that end a text and that fill a batch."""

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
