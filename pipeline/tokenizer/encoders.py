"""Encoders of ordinary text: byte-level BPE by tiktoken and gigatoken, or characters.

None of them has special tokens, so no text can be encoded to one; pipeline.tokenizer.library has a third encoder.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import cpu_count
from typing import Literal, Protocol

import numpy as np

from pipeline.errors import UserError
from pipeline.tokenizer import fast
from pipeline.tokenizer.pretokenizer import parts
from pipeline.tokenizer.utf8 import Utf8

Ids = np.ndarray
"""One text's ids, uint32 [n_tokens]."""
Normalizer = Literal["NFC"] | None


class UnencodableError(UserError):
    """A text that a vocabulary has no ids for: `reason` names the byte or character, the message its place too."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(
            f"{detail}; remove it from the text, or take a vocabulary that has it (tokenize in params.yaml)"
        )
        self.reason = reason


class Encoder(Protocol):
    """Encoder of ordinary text to token ids."""

    lossless: bool = True
    """Whether decoding gives every encoded text back."""
    sums_bytes: bool = True
    """Whether the text of ids is the sum of their bytes in `table`; else `decode` gives it."""
    refuses: bool = False
    """Whether there are texts without ids."""
    unknown: int | None = None
    """Id of text that the vocabulary has no token for."""

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """The ids of each text, uint32 [n_tokens]. Raises UnencodableError for a text without ids."""

    def encode_utf8(self, texts: Utf8) -> list[Ids]:
        """`encode` of texts in UTF-8."""
        return self.encode([text.decode() for text in texts.cut()])

    def table(self) -> dict[int, bytes]:
        """Id -> the bytes that it decodes to."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        table = self.table()
        return b"".join(table[number] for number in ids).decode("utf-8", errors="replace")


class BytePairs(Encoder):
    """Byte-level BPE by tiktoken, on parts of a text that its regular expression can read."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str, normalizer: Normalizer = None) -> None:
        from tiktoken import Encoding

        self._ranks = ranks
        self._pattern, self._normalizer = pattern, normalizer
        self._encoding = Encoding("tohum", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})
        self.lossless = normalizer is None
        missing = missing_bytes(ranks)  # tiktoken panics on a text that needs one
        self.refuses = bool(missing)
        self._missing = re.compile(b"[%b]" % re.escape(missing)) if missing else None

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See Encoder. Raises UnencodableError for a byte without a token."""
        if self._normalizer:
            texts = [unicodedata.normalize(self._normalizer, text) for text in texts]
        if self._missing is not None:
            for text in texts:
                self._require_bytes(text)
        cut = [parts(text) for text in texts]
        flat = [part for pieces in cut for part in pieces]
        threads = min(cpu_count() or 1, len(flat))
        if threads > 1:
            encoded = iter(self._encoding.encode_ordinary_batch(flat, num_threads=threads))
        else:
            encoded = map(self._encoding.encode_ordinary, flat)
        return [joined([next(encoded) for _ in pieces]) for pieces in cut]

    def encode_utf8(self, texts: Utf8) -> list[Ids]:
        """See Encoder; by gigatoken where it is installed and gives equal ids."""
        return super().encode_utf8(texts) if self._corpus is None else self._corpus.encode(texts)

    def _require_bytes(self, text: str) -> None:
        assert self._missing is not None
        utf8 = text.encode("utf-8", "replace")
        if found := self._missing.search(utf8):
            raise without_token(text, len(utf8[: found.start()].decode("utf-8", "ignore")), utf8[found.start()])

    @cached_property
    def _corpus(self) -> fast.CorpusEncoder | None:
        return (
            None if self._normalizer or self._missing else fast.corpus_encoder(self._ranks, self._pattern, self.encode)
        )

    def table(self) -> dict[int, bytes]:
        """See Encoder."""
        return {rank: token for token, rank in self._ranks.items()}


class Characters(Encoder):
    """Character-level encoder: one id per character, in the order of `alphabet`."""

    refuses = True

    def __init__(self, alphabet: str) -> None:
        self._alphabet = alphabet
        self._points = np.array([ord(letter) for letter in alphabet], dtype=np.uint32)
        self._order = np.argsort(self._points)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """See Encoder. Raises UnencodableError for a character without an id, naming it and its position."""
        return [self._ids(text) for text in texts]

    def _ids(self, text: str) -> Ids:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        places = np.searchsorted(self._points, points, sorter=self._order)
        ids = self._order[places.clip(max=len(self._order) - 1)]
        unknown = np.flatnonzero(self._points[ids] != points)
        if len(unknown):
            at = int(unknown[0])
            raise without_token(text, at)
        return np.asarray(ids, dtype=np.uint32)

    def table(self) -> dict[int, bytes]:
        """See Encoder."""
        return {number: letter.encode("utf-8") for number, letter in enumerate(self._alphabet)}


def without_token(text: str, at: int, byte: int | None = None) -> UnencodableError:
    """The error for the character at a position of a text, or for a byte of it, that has no token."""
    character = f"character {text[at]!r} (U+{ord(text[at]):04X})"
    if byte is None:
        return UnencodableError(f"no token for {character}", f"{character} at position {at} of the text has no token")
    reason = f"byte {byte:#04x}"
    return UnencodableError(
        f"no token for {reason}", f"{reason} of {character} at position {at} of the text has no token"
    )


def missing_bytes(ranks: Mapping[bytes, int]) -> bytes:
    """The bytes that have no token of their own, ascending."""
    return bytes(byte for byte in range(256) if bytes([byte]) not in ranks)


def joined(pieces: list[list[int]]) -> Ids:
    """The ids of consecutive parts of a text as one array."""
    if len(pieces) == 1:
        return np.array(pieces[0], dtype=np.uint32)
    return np.concatenate([np.array(piece, dtype=np.uint32) for piece in pieces])
