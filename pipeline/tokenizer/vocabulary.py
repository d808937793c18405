"""The files of a byte-level BPE vocabulary: tiktoken ranks, GPT-2's two files, Hugging Face's tokenizer.json.

A vocabulary is `ranks`: bytes -> id, where the id is also the merge order (lower ids merge first). tokenizer.json lists
pairs instead. `merge_pairs` computes for each token the one pair that makes it: on the bytes that become a token of a
text, merging takes the same steps as on just these bytes, so no other pair can form it, and merging by listed pairs
equals merging by rank. Pieces that are tokens as a whole are looked up first by both (tiktoken always; `ignore_merges`
here), which covers tokens without merges. Sources: Sennrich et al. 2016 (BPE), Radford et al. 2019 (bytes as printable
characters, encoder.py).
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from pipeline.errors import UserError
from pipeline.tokenizer.pretokenizer import huggingface_form

END_OF_TEXT, PAD, USER, ASSISTANT, SYSTEM, END = SPECIALS = (
    "<|endoftext|>",
    "<|pad|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
)
"""The special tokens, in the order of their ids; only code inserts them."""


@cache
def byte_letters() -> tuple[str, ...]:
    """GPT-2's printable character for each byte 0..255 (`encoder.py`, bytes_to_unicode)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(256))


@cache
def _letter_bytes() -> dict[str, int]:
    return {letter: byte for byte, letter in enumerate(byte_letters())}


def spelled(token: bytes) -> str:
    """A token as in tokenizer.json: one printable character per byte."""
    letters = byte_letters()
    return "".join(letters[byte] for byte in token)


def unspelled(text: str) -> bytes:
    """The bytes of a token from `spelled`. Raises KeyError for a character of no byte."""
    byte_of = _letter_bytes()
    return bytes([byte_of[letter] for letter in text])


def parse_ranks(data: bytes, name: str, *, complete: bool = True) -> dict[bytes, int]:
    """The ranks in a tiktoken ranks file: a line per token, base64, a space, the rank.

    Parsed here because tiktoken's reader has a cache by path, which may hold an earlier vocabulary of that path.

    Args:
        data: content of the file.
        name: of the file, for errors.
        complete: whether each of the 256 bytes must have a token (an adopted vocabulary may lack some).

    Raises:
        UserError: a line of another form, a token or rank twice, a byte without a token; names `name` and the line.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            text, rank = line.split()
            token, value = base64.b64decode(text, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise UserError(
                f"{name}: line {number} is {line[:60]!r}; expected a ranks file: base64, a space, a rank"
            ) from None
        if token in ranks or value < 0:
            raise UserError(f"{name}: line {number} repeats a token or has a negative rank: {line[:60]!r}")
        ranks[token] = value
    return checked(ranks, name, complete=complete)


def checked(ranks: dict[bytes, int], name: str, *, complete: bool = True) -> dict[bytes, int]:
    """The ranks themselves. Raises UserError (naming `name`) for a byte without a rank, or a rank of two tokens."""
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks] if complete else []
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of the 256 single bytes have no token (first: {missing[0]:#04x}), so "
            "not every text could be encoded; expected a byte-level BPE vocabulary"
        )
    if len(set(ranks.values())) != len(ranks):
        raise UserError(f"{name}: two tokens share a rank; expected each rank once")
    return ranks


def dump_ranks(ranks: Mapping[bytes, int]) -> bytes:
    """A tiktoken ranks file, in order of rank."""
    encode = binascii.b2a_base64
    ordered = sorted(zip(ranks.values(), ranks.keys(), strict=True))
    return b"".join([b"%b %d\n" % (encode(token, newline=False), rank) for rank, token in ordered])


def parse_gpt2(encoder: bytes, merges: bytes, name: str) -> dict[bytes, int]:
    """GPT-2's encoder.json and vocab.bpe as ranks (the end-of-text entry left out).

    Raises:
        UserError: other files, or ids that do not follow the merge order.
    """
    try:
        ids = {unspelled(token): rank for token, rank in json.loads(encoder).items() if token != END_OF_TEXT}
        pairs = [line.split() for line in merges.decode("utf-8").split("\n")[1:] if line]
        order = [unspelled(left) + unspelled(right) for left, right in pairs]
    except (ValueError, KeyError, AttributeError):
        raise UserError(
            f"{name}: expected encoder.json and vocab.bpe in GPT-2's format; use the published ones"
        ) from None
    if [ids.get(token) for token in order] != list(range(256, 256 + len(order))):
        raise UserError(f"{name}: the ids in encoder.json do not follow vocab.bpe; use both files of one model")
    return checked(ids, name)


def merge_halves(merges: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """The two tokens of each entry of `merges`: a pair, or in older files one text with a blank between them."""
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def merge_pairs(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that makes each token, in order of rank; none for tokens that merging cannot make."""
    no_rank = max(ranks.values()) + 1
    longer = sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__)
    return [pair for token in longer if (pair := _last_merge(token, ranks, no_rank)) is not None]


def _last_merge(token: bytes, ranks: Mapping[bytes, int], no_rank: int) -> tuple[bytes, bytes] | None:
    pieces = [bytes([byte]) for byte in token]
    while len(pieces) > 2:
        pair_ranks = [ranks.get(left + right, no_rank) for left, right in pairwise(pieces)]
        lowest = min(pair_ranks)
        if lowest == no_rank:
            return None
        at = pair_ranks.index(lowest)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces[0], pieces[1]


def byte_level_json(ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int]) -> bytes:
    """tokenizer.json of a byte-level BPE with one of the named patterns.

    Other libraries map a special token written in a user's text to its id, as the format prescribes; pipeline.tokenizer
    never does.
    """
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": True,
        "vocab": {spelled(token): rank for token, rank in ranks.items()},
        "merges": [f"{spelled(left)} {spelled(right)}" for left, right in merge_pairs(ranks)],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _tokenizer_json(model, huggingface_form(pattern), byte_level, special)


def characters_json(alphabet: Iterable[str], special: Mapping[str, int]) -> bytes:
    """tokenizer.json of a vocabulary of single characters; ids in the order of `alphabet`."""
    model = {"type": "WordLevel", "vocab": {letter: i for i, letter in enumerate(alphabet)}, "unk_token": ""}
    split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    return _tokenizer_json(model, split, {"type": "Fuse"}, special)


def added_token(text: str, number: int) -> dict[str, Any]:
    """An entry of `added_tokens` for a special token."""
    return {
        "id": number,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def settings_json(special: Mapping[str, int], end_of_text: str) -> dict[str, Any]:
    """tokenizer_config.json, which transformers' PreTrainedTokenizerFast reads beside tokenizer.json.

    Of a vocabulary; pipeline.tokenizer.export writes that of a model, with its limits and its chat template.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end_of_text,
        "pad_token": PAD if PAD in special else end_of_text,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": [token for token in special if token not in (end_of_text, PAD)],
    }


def to_json(value: Any) -> bytes:
    """JSON in the format of pipeline.files.write_json."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _tokenizer_json(model: Any, pre_tokenizer: Any, decoder: Any, special: Mapping[str, int]) -> bytes:
    added = [added_token(text, number) for text, number in sorted(special.items(), key=lambda item: item[1])]
    return to_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": decoder,
            "model": model,
        }
    )
