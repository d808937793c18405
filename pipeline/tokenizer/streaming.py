"""Text of token ids as they are generated, in pieces of whole characters that add up to the decoded text."""

from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.tokenizer import Tokenizer

_CUT = "\ufffd"  # the decoder's text of bytes that are no whole character
_LONGEST_CHARACTER = 4  # tokens: one for each byte of UTF-8


class TextStream:
    """Incremental decoder of one text.

    Where tokens are bytes, a piece ends with the last whole character. Where the vocabulary has a decoder of its own
    (it joins words and strips the first blank), a piece is the text that the new tokens add to the tokens before them.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._characters = getincrementaldecoder("utf-8")(errors="replace")
        self._before: list[int] = []
        self._waiting: list[int] = []

    def add(self, token: int) -> str:
        """The text that is complete with this token, maybe empty."""
        if self._tokenizer.sums_bytes:
            return self._characters.decode(self._tokenizer.decode_bytes([token]))
        self._waiting.append(token)
        piece = self._added()
        if piece.endswith(_CUT) and len(self._waiting) < _LONGEST_CHARACTER:
            return ""  # a later byte may complete the character
        self._before, self._waiting = self._waiting, []
        return piece

    def rest(self) -> str:
        """The text of the tokens that no later one completed."""
        piece = self._characters.decode(b"", final=True) if self._tokenizer.sums_bytes else self._added()
        self._waiting = []
        return piece

    def _added(self) -> str:
        """The text that the waiting tokens add to that of the tokens before them."""
        before = self._tokenizer.decode(self._before)
        return self._tokenizer.decode([*self._before, *self._waiting])[len(before) :]
