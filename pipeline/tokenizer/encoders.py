"""Encoders of ordinary text: byte-level BPE by tiktoken and gigatoken, the tokenizers library, or characters.

None of them has special tokens, so no text can be encoded to one.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import cpu_count
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.errors import UserError
from pipeline.tokenizer import fast, vocabulary
from pipeline.tokenizer.pretokenizer import parts
from pipeline.tokenizer.utf8 import Utf8

Ids = np.ndarray
"""One text's ids, uint32 [n_tokens]."""
Normalizer = Literal["NFC"] | None


class Encoder(Protocol):
    """Encoder of ordinary text to token ids."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, uint32 [n_tokens]."""

    def encode_utf8(self, texts: Utf8) -> list[Ids]:
        """`encode` of texts in UTF-8."""
        return self.encode([text.decode() for text in texts.cut()])

    def table(self) -> dict[int, bytes]:
        """Id -> the bytes that it decodes to."""


class BytePairs(Encoder):
    """Byte-level BPE by tiktoken, on parts of a text that its regular expression can read."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str, normalizer: Normalizer = None) -> None:
        from tiktoken import Encoding

        self._ranks = ranks
        self._pattern, self._normalizer = pattern, normalizer
        self._encoding = Encoding("tohum", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See Encoder."""
        if self._normalizer:
            texts = [unicodedata.normalize(self._normalizer, text) for text in texts]
        cut = [parts(text) for text in texts]
        flat = [part for pieces in cut for part in pieces]
        threads = min(cpu_count() or 1, len(flat))
        if threads > 1:
            encoded = iter(self._encoding.encode_ordinary_batch(flat, num_threads=threads))
        else:
            encoded = map(self._encoding.encode_ordinary, flat)
        return [_joined([next(encoded) for _ in pieces]) for pieces in cut]

    def encode_utf8(self, texts: Utf8) -> list[Ids]:
        """See Encoder; by gigatoken where it is installed and gives equal ids."""
        return super().encode_utf8(texts) if self._corpus is None else self._corpus.encode(texts)

    @cached_property
    def _corpus(self) -> fast.CorpusEncoder | None:
        return None if self._normalizer else fast.corpus_encoder(self._ranks, self._pattern, self.encode)

    def table(self) -> dict[int, bytes]:
        """See Encoder."""
        return {rank: token for token, rank in self._ranks.items()}


class Characters(Encoder):
    """Character-level encoder: one id per character, in the order of `alphabet`."""

    def __init__(self, alphabet: str) -> None:
        self._alphabet = alphabet
        self._points = np.array([ord(letter) for letter in alphabet], dtype=np.uint32)
        self._order = np.argsort(self._points)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See Encoder. Raises UserError for a character without an id, naming it and its position."""
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> Ids:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(self._points, points, sorter=self._order)
        ids = self._order[places.clip(max=len(self._order) - 1)]
        unknown = np.flatnonzero(self._points[ids] != points)
        if len(unknown):
            at = int(unknown[0])
            raise UserError(
                f"character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} of the text has no id; expected one "
                f"of the vocabulary's {len(self._alphabet)} characters; for any text use tokenize.method train"
            )
        return np.asarray(ids, dtype=np.uint32)

    def table(self) -> dict[int, bytes]:
        """See Encoder."""
        return {number: letter.encode("utf-8") for number, letter in enumerate(self._alphabet)}


class Library(Encoder):
    """Encoder of the tokenizers library, from a tokenizer.json without its control tokens."""

    def __init__(self, data: bytes) -> None:
        from tokenizers import Tokenizer

        raw = json.loads(data)
        self._bytes = {number: vocabulary.unspelled(token) for token, number in ordinary(raw).items()}
        self._bytes |= {token["id"]: token["content"].encode("utf-8") for token in blanks(raw)}
        self._tokenizer = Tokenizer.from_str(json.dumps(without_control(raw)))

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See Encoder."""
        return [_joined([self._ids(part) for part in parts(text)]) for text in texts]

    def table(self) -> dict[int, bytes]:
        """See Encoder."""
        return dict(self._bytes)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def is_control(token: Mapping[str, Any]) -> bool:
    """Whether an entry of `added_tokens` is a control token: special, or not only white space."""
    return bool(token.get("special")) or not token["content"].isspace()


def blanks(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The added tokens of a tokenizer.json that are white space, which is text (GPT-NeoX)."""
    return [token for token in raw.get("added_tokens") or [] if not is_control(token)]


def ordinary(raw: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of the model's vocabulary, without added tokens, which some files list there too."""
    added = {token["content"] for token in raw.get("added_tokens") or []}
    return {token: number for token, number in raw["model"]["vocab"].items() if token not in added}


def without_control(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.json without control tokens, so that the library cannot match them in text."""
    model = {**raw["model"], "vocab": ordinary(raw), "unk_token": None}
    # The library assigns ids to added tokens, so a blank must stay in the vocabulary to keep its id.
    model["vocab"] |= {token["content"]: token["id"] for token in blanks(raw)}
    return {
        **raw,
        "model": model,
        "added_tokens": blanks(raw),
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }


def _joined(pieces: list[list[int]]) -> Ids:
    if len(pieces) == 1:
        return np.array(pieces[0], dtype=np.uint32)
    return np.concatenate([np.array(piece, dtype=np.uint32) for piece in pieces])
