"""Encoder of the tokenizers library, for any tokenizer.json, with control tokens out of reach of text.

The library encodes by a tokenizer.json from which the control tokens (special ones, and control words like `<think>`)
are taken: left out of the added tokens and of the model's vocabulary, or, where the model needs an entry (the unknown
token, every piece of a Unigram model), renamed to a text that no word of the model can be. Ids stay as they are.

Two kinds of vocabulary: byte-level BPE, whose tokens are bytes, so decoding is exact; and all others (WordPiece,
Unigram, WordLevel, BPE with byte_fallback or with a text-changing step), decoded by the library's own decoder.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.foreign import shown
from pipeline.tokenizer import vocabulary
from pipeline.tokenizer.encoders import Encoder, Ids, UnencodableError, joined, missing_bytes, without_token
from pipeline.tokenizer.pretokenizer import flat, parts

_BLANK = "\u2581"  # SentencePiece's visible blank
_HIDDEN = "\U0010fffd"  # last character for private use
_LONGEST_WORD = 100  # default of WordPiece's max_input_chars_per_word


class Library(Encoder):
    """The tokenizers library on a tokenizer.json without its control tokens."""

    def __init__(self, data: bytes, special: Mapping[str, int], reserved: Collection[int] = ()) -> None:
        """Reads a tokenizer.json.

        Args:
            data: its bytes.
            special: control tokens, text -> id.
            reserved: ids that no text may get, even if the model has such a token as its unknown token.

        Raises:
            Exception: the library's own, for a file that it cannot read.
        """
        from tokenizers import Tokenizer

        self._data, raw = data, json.loads(data)
        self._bytes = byte_table(raw, special)
        self.lossless = self._bytes is not None and not raw.get("normalizer")
        self.sums_bytes = self._bytes is not None
        written, self.unknown, self._unreachable = _without_control(raw, special, reserved)
        complete = self._bytes is not None and not missing_bytes(dict.fromkeys(self._bytes.values(), 0))
        self.refuses = bool(self._unreachable) and not complete
        self._names = {number: token.encode("utf-8") for token, number in _entries(raw["model"])}
        self._tokenizer = Tokenizer.from_str(json.dumps(written))

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See Encoder. Raises UnencodableError, naming the first byte or character without a token."""
        # `parts` knows where the patterns of byte-level vocabularies end a piece
        cut = [parts(text) if self.sums_bytes else [text] for text in texts]
        pieces = [part for text_parts in cut for part in text_parts]
        encoded = iter(self._encoded(pieces))
        all_ids = [joined([next(encoded) for _ in text_parts]) for text_parts in cut]
        for text, ids in zip(texts, all_ids, strict=True):
            if self._unreachable and np.isin(ids, self._unreachable_ids).any():
                raise self._fault(text)
        return all_ids

    def table(self) -> dict[int, bytes]:
        """See Encoder; the token's own text where decoding is the library's."""
        return dict(self._bytes if self._bytes is not None else self._names)

    def decode(self, ids: Sequence[int]) -> str:
        """The text by the library's decoder, control tokens by their names."""
        return str(self._whole.decode(list(ids), skip_special_tokens=False))

    @cached_property
    def _unreachable_ids(self) -> np.ndarray:
        return np.array(sorted(self._unreachable), np.uint32)

    @cached_property
    def _whole(self) -> Any:
        """The vocabulary with its control tokens, for decoding."""
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self._data.decode("utf-8"))

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) == 1:
            return [self._ids(texts[0])]
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except BaseException as error:
            if not _is_refusal(error):
                raise
            return [self._ids(text) for text in texts]
        return [encoding.ids for encoding in encodings]

    def _ids(self, text: str) -> list[int]:
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        except BaseException as error:
            if not _is_refusal(error):
                raise
            reason = "the tokenizers library cannot encode it"
            raise UnencodableError(reason, f"{reason}: {shown(error)}") from None

    def _fault(self, text: str) -> UnencodableError:
        """The error that names the first character, or byte of it, that has no token."""
        for at, letter in enumerate(text):
            if not self._unreachable.isdisjoint(self._ids(letter)):
                missing = [byte for byte in letter.encode() if not self._has(byte)] if self.sums_bytes else []
                return without_token(text, at, *missing[:1])
        return UnencodableError("no token for a part of the text", "a part of the text has no token")

    def _has(self, byte: int) -> bool:
        return bytes([byte]) in set((self._bytes or {}).values())


def kind_of(model: Mapping[str, Any]) -> Any:
    """`model.type`; older files leave it out, and the tokenizers library then tells the models by their fields."""
    if "type" in model:
        return model["type"]
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel" if "unk_token" in model else None


def is_control(token: Mapping[str, Any]) -> bool:
    """Whether an entry of `added_tokens` is a control token: special, or not only white space."""
    return bool(token.get("special")) or not token["content"].replace(_BLANK, " ").isspace()


def blanks(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens of a tokenizer.json that are white space, which is text (GPT-NeoX)."""
    return [token for token in raw.get("added_tokens") or [] if not is_control(token)]


def ordinary(raw: Mapping[str, Any], special: Collection[str] = ()) -> dict[str, int]:
    """Token -> id of the model's vocabulary, without added and special tokens, which some files list there too."""
    added = {token["content"] for token in raw.get("added_tokens") or []} | set(special)
    return {token: number for token, number in _entries(raw["model"]) if token not in added}


def byte_table(raw: Mapping[str, Any], special: Collection[str]) -> dict[int, bytes] | None:
    """Id -> bytes of a byte-level BPE whose text is the sum of its tokens' bytes; None for any other vocabulary."""
    model, steps = raw["model"], flat(raw.get("pre_tokenizer"))
    normalizer = raw.get("normalizer") or {}
    inner = normalizer.get("normalizers", [normalizer]) if normalizer else []
    plain = (
        kind_of(model) == "BPE"
        and not any(model.get(key) for key in ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix"))
        and any(step["type"] == "ByteLevel" for step in steps)
        and not any(step.get("add_prefix_space") for step in steps)
        and all(step["type"] in _KEEPING and step.get("behavior") != "Removed" for step in steps)
        and all(step.get("type") == "NFC" for step in inner)
    )
    if not plain:
        return None
    tokens = ordinary(raw, special)
    letters = set(vocabulary.byte_letters())
    if not all(letters.issuperset(token) for token in tokens):
        return None
    if model.get("unk_token") in model["vocab"] and not letters <= tokens.keys():
        return None  # a missing byte becomes the unknown token
    table = {number: vocabulary.unspelled(token) for token, number in tokens.items()}
    return table | {token["id"]: token["content"].encode("utf-8") for token in blanks(raw)}


_KEEPING = frozenset({"ByteLevel", "Split", "Digits", "Punctuation", "UnicodeScripts"})
"""Pre-tokenizers that only cut text (Split and Punctuation unless their behavior is Removed)."""


def _entries(model: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Tokens and ids of a model's vocabulary; a Unigram model lists [piece, score] in the order of ids."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        return ((piece[0], number) for number, piece in enumerate(vocab))
    return iter(vocab.items())


def hidden(raw: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    """A tokenizer.json of which no control token can be matched in text."""
    return _without_control(raw, special, ())[0]


def _without_control(
    raw: Mapping[str, Any], special: Mapping[str, int], reserved: Collection[int]
) -> tuple[dict[str, Any], int | None, frozenset[int]]:
    """A tokenizer.json without control tokens; the id of unknown text; ids that mean that a text has no encoding.

    Where the model has no unknown token of its own, or one that no text may get, it is given one with an id of its own.
    """
    model = dict(raw["model"])
    text_tokens = blanks(raw)
    control = set(special) | {token["content"] for token in raw.get("added_tokens") or []}
    control -= {token["content"] for token in text_tokens}
    most = max([number for _, number in _entries(model)] + [token["id"] for token in text_tokens], default=-1) + 1
    name = _HIDDEN * (max(_LONGEST_WORD, int(model.get("max_input_chars_per_word") or 0)) + 1)
    if isinstance(model["vocab"], list):
        unknown, unreachable = _hide_pieces(model, special, control, text_tokens, reserved, name)
    else:
        unknown, unreachable = _hide_tokens(model, control, text_tokens, reserved, (name, most))
    parts_left_out = {"post_processor": None, "truncation": None, "padding": None}
    return {**raw, "model": model, "added_tokens": text_tokens, **parts_left_out}, unknown, unreachable


def _hide_tokens(
    model: dict[str, Any],
    control: set[str],
    text_tokens: list[dict[str, Any]],
    reserved: Collection[int],
    spare: tuple[str, int],
) -> tuple[int | None, frozenset[int]]:
    """Hides the control tokens of a BPE, WordPiece or WordLevel model; `spare`: a name and an id not in use."""
    vocab: dict[str, int] = model["vocab"]
    unknown = vocab.get(model.get("unk_token") or "")
    hidden = {token for token in control if token in vocab}
    # The library assigns ids to added tokens, so a blank must stay in the vocabulary to keep its id.
    kept = {token: number for token, number in vocab.items() if token not in hidden and number != unknown}
    kept |= {token["content"]: token["id"] for token in text_tokens}
    if unknown in reserved:
        unknown = None
    name, most = spare
    model |= {"vocab": kept | {name: most if unknown is None else unknown}, "unk_token": name}
    if "merges" in model and hidden:
        prefix = len(model.get("continuing_subword_prefix") or "")
        model["merges"] = [
            merge
            for merge, (left, right) in zip(model["merges"], vocabulary.merge_halves(model["merges"]), strict=True)
            if hidden.isdisjoint((left, right, left + right, left + right[prefix:]))
        ]
    return unknown, frozenset([most] if unknown is None else [])


def _hide_pieces(  # noqa: PLR0913 - the parts of one vocabulary
    model: dict[str, Any],
    special: Mapping[str, int],
    control: set[str],
    text_tokens: list[dict[str, Any]],
    reserved: Collection[int],
    name: str,
) -> tuple[int | None, frozenset[int]]:
    """Hides the control tokens of a Unigram model, whose ids are places in a list, by renaming them."""
    unknown: int | None = model.get("unk_id")
    hidden = {number for number, piece in enumerate(model["vocab"]) if piece[0] in control}
    pieces = [
        [f"{name}{number}" if number in hidden or number == unknown else piece[0], piece[1]]
        for number, piece in enumerate(model["vocab"])
    ]
    texts = {token["id"]: token["content"] for token in text_tokens if token["id"] >= len(pieces)}
    for number in range(len(pieces), max(texts, default=-1) + 1):
        hidden |= set() if number in texts else {number}
        pieces.append([texts.get(number, f"{name}{number}"), 0.0])
    if unknown in reserved:
        unknown = None
    if unknown is None:
        hidden.add(len(pieces))
        model["unk_id"] = len(pieces)
        pieces.append([f"{name}{len(pieces)}", 0.0])
    model["vocab"] = pieces
    return unknown, frozenset(hidden - {unknown} | set(special.values()) - {unknown})


def _is_refusal(error: BaseException) -> bool:
    """Whether the library says that it cannot encode; a panic of its Rust code is no Exception."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
