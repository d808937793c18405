"""gigatoken, where it is installed: tiktoken's ids and rustbpe's merges at several times their speed.

It is believed only as far as it is seen to agree. Its Unicode tables are newer than tiktoken's, so every character that
a corpus holds is shown to both once, in places where its class decides how text is cut; texts with a character on which
they differ go the slow way, and so does everything where the vocabulary's first texts come out differently.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.tokenizer import vocabulary
from pipeline.tokenizer.pretokenizer import PART, PATTERNS, parts
from pipeline.tokenizer.utf8 import Bytes, Utf8

Ids = np.ndarray
SCHEMES = {
    PATTERNS["gpt2"].tiktoken: "gpt2",
    PATTERNS["cl100k_base"].tiktoken: "cl100k",
    PATTERNS["o200k_base"].tiktoken: "o200k",
}
"""What gigatoken calls the patterns that it cuts by as tiktoken does (tests: every character, and random text)."""
_SHOWN = 1 << 16  # bytes of a corpus's first texts that both encode
_FRESH = 1 << 26  # bytes after which gigatoken's memory of words begins anew


def corpus(ranks: Mapping[bytes, int], pattern: str, slow: Callable[[Sequence[str]], list[Ids]]) -> "Corpus | None":
    """The fast way to encode texts with this vocabulary; none where gigatoken is not there or does not take it."""
    if not available(pattern):
        return None
    made = _loaded(vocabulary.dump_ranks(ranks), SCHEMES[pattern])
    return None if made is None else Corpus(made, ranks, pattern, slow)


class Corpus:
    """Encodes many texts with gigatoken, those that it might cut differently with `slow`."""

    def __init__(
        self, made: Any, ranks: Mapping[bytes, int], pattern: str, slow: Callable[[Sequence[str]], list[Ids]]
    ) -> None:
        self._fast, self._ranks, self._pattern, self._slow = made, ranks, pattern, slow
        self._characters = Characters(pattern)
        self._agreed: bool | None = None
        self._read = 0

    def encode(self, several: Utf8) -> list[Ids]:
        """The ids of each text, uint32."""
        texts, size = several.cut(), len(several.letters)
        self._read += size
        if self._read > _FRESH:  # it keeps every word that it ever saw
            self._fast, self._read = _loaded(vocabulary.dump_ranks(self._ranks), SCHEMES[self._pattern]), size
        strange = self._characters.strange(several.letters)
        found = [self._one(text) for text in texts]
        if self._agreed is None:
            self._agreed = self._agrees(texts, found)
        if not self._agreed:
            return self._slow([text.decode() for text in texts])
        if strange:
            odd = [i for i, text in enumerate(texts) if not strange.isdisjoint(text.decode())]
            for i, ids in zip(odd, self._slow([texts[i].decode() for i in odd]), strict=True):
                found[i] = ids
        return found

    def _one(self, text: bytes) -> Ids:
        if len(text) <= PART:
            ids: Ids = self._fast.encode(text)
            return ids
        return np.concatenate([self._fast.encode(part) for part in parts(text.decode())])

    def _agrees(self, texts: Sequence[bytes], found: Sequence[Ids]) -> bool:
        """Whether the first texts have the ids that they should have."""
        shown = 0
        for text, ids in zip(texts, found, strict=True):
            if shown > _SHOWN:
                break
            shown += len(text)
            if self._characters.plain(text) and not np.array_equal(ids, self._slow([text.decode()])[0]):
                warnings.warn("gigatoken gives other ids than tiktoken, which encodes instead", stacklevel=2)
                return False
        return True


class Characters:
    """Which characters gigatoken and tiktoken put into the same class, asked once for each."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._known = np.zeros(0x110000, dtype=bool)
        self._strange: set[str] = set()

    def strange(self, letters: Bytes) -> set[str]:
        """The characters of these texts in UTF-8 on which the two differ."""
        points = letters[letters >= 0x80].tobytes().decode()
        seen = np.frombuffer(points.encode("utf-32-le"), dtype="<u4")
        for point in np.unique(seen[~self._known[seen]]):
            self._ask(chr(point))
        return self._strange & set(points) if self._strange else set()

    def plain(self, text: bytes) -> bool:
        """Whether the text has no such character."""
        return self._strange.isdisjoint(text.decode())

    def _ask(self, letter: str) -> None:
        text = f"a{letter}b 1{letter}1 {letter}. .{letter}a\n{letter}b'{letter} {letter}{letter} 's{letter}"
        fast, slow = self._cutters
        if list(fast.encode(text)) != slow.encode_ordinary(text):
            self._strange.add(letter)
        self._known[ord(letter)] = True

    @cached_property
    def _cutters(self) -> tuple[Any, Any]:
        """Both, with a vocabulary in which almost any two neighbours make a token unless a cut stands between them."""
        from tiktoken import Encoding

        pairs = [pair for byte in range(256) for x in b"ab1 .'s\n" for pair in (bytes([x, byte]), bytes([byte, x]))]
        tokens = [bytes([byte]) for byte in range(256)] + list(dict.fromkeys(pairs))
        ranks = {token: rank for rank, token in enumerate(tokens)}
        slow = Encoding("cuts", pat_str=self._pattern, mergeable_ranks=ranks, special_tokens={})
        return _loaded(vocabulary.dump_ranks(ranks), SCHEMES[self._pattern]), slow


def available(pattern: str) -> bool:
    """Whether gigatoken is installed and knows the pattern."""
    return pattern in SCHEMES and find_spec("gigatoken") is not None


def _loaded(ranks: bytes, scheme: str) -> Any | None:
    """gigatoken over these ranks; none where it takes no such file: ranks with gaps, tokens that no merge makes."""
    from gigatoken import Tokenizer

    with TemporaryDirectory() as folder, silent():
        path = Path(folder) / "ranks.tiktoken"
        path.write_bytes(ranks)
        try:
            return Tokenizer.from_tiktoken(path, scheme).backend
        except BaseException as error:  # a panic of its Rust code is no Exception
            if isinstance(error, RuntimeError | ValueError) or type(error).__name__ == "PanicException":
                return None
            raise


@contextmanager
def silent() -> Iterator[None]:
    """gigatoken writes to both streams by itself; nothing of it is for the reader of a log."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
