"""gigatoken, where it is installed: tiktoken's ids and rustbpe's merges, several times faster.

Its results are verified. Its Unicode tables are newer than tiktoken's, so every character of a corpus is encoded once
by both, in contexts where its class decides how text is cut; texts with a character on which they differ are encoded by
tiktoken, and so are all texts where the ids of the first ones differ.
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
"""Pattern -> its name in gigatoken, where it cuts as tiktoken does (tests: all characters, and random text)."""
_SHOWN = 1 << 16  # bytes of a corpus's first texts that both encode
_FRESH = 1 << 26  # bytes after which gigatoken's word cache is emptied
Encode = Callable[[Sequence[str]], list[Ids]]


def corpus_encoder(ranks: Mapping[bytes, int], pattern: str, slow: Encode) -> "CorpusEncoder | None":
    """An encoder of many texts by gigatoken; None where it is not installed or does not support the vocabulary."""
    if not available(pattern):
        return None
    backend = _loaded(vocabulary.dump_ranks(ranks), SCHEMES[pattern])
    return None if backend is None else CorpusEncoder(backend, ranks, pattern, slow)


class CorpusEncoder:
    """Encoder of many texts by gigatoken, and by `slow` for texts that it might cut differently."""

    def __init__(self, backend: Any, ranks: Mapping[bytes, int], pattern: str, slow: Encode) -> None:
        self._fast, self._ranks, self._pattern, self._slow = backend, ranks, pattern, slow
        self._characters = CharacterClasses(pattern)
        self._agreed: bool | None = None
        self._read = 0

    def encode(self, several: Utf8) -> list[Ids]:
        """The ids of each text, uint32."""
        texts, size = several.cut(), len(several.letters)
        self._read += size
        if self._read > _FRESH:  # gigatoken caches every word that it reads
            self._fast, self._read = _loaded(vocabulary.dump_ranks(self._ranks), SCHEMES[self._pattern]), size
        differing = self._characters.differing(several.letters)
        encoded = [self._ids(text) for text in texts]
        if self._agreed is None:
            self._agreed = self._agrees(texts, encoded)
        if not self._agreed:
            return self._slow([text.decode() for text in texts])
        if differing:
            again = [i for i, text in enumerate(texts) if not differing.isdisjoint(text.decode())]
            for i, ids in zip(again, self._slow([texts[i].decode() for i in again]), strict=True):
                encoded[i] = ids
        return encoded

    def _ids(self, text: bytes) -> Ids:
        if len(text) <= PART:
            ids: Ids = self._fast.encode(text)
            return ids
        return np.concatenate([self._fast.encode(part) for part in parts(text.decode())])

    def _agrees(self, texts: Sequence[bytes], encoded: Sequence[Ids]) -> bool:
        """Whether the first texts have equal ids by both."""
        shown = 0
        for text, ids in zip(texts, encoded, strict=True):
            if shown > _SHOWN:
                break
            shown += len(text)
            if self._characters.plain(text) and not np.array_equal(ids, self._slow([text.decode()])[0]):
                warnings.warn("gigatoken gives other ids than tiktoken, which encodes instead", stacklevel=2)
                return False
        return True


class CharacterClasses:
    """Characters that gigatoken and tiktoken put into different classes; each is tested once."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._tested = np.zeros(0x110000, dtype=bool)
        self._differing: set[str] = set()

    def differing(self, letters: Bytes) -> set[str]:
        """The characters of UTF-8 texts on which the two differ."""
        characters = letters[letters >= 0x80].tobytes().decode()
        points = np.frombuffer(characters.encode("utf-32-le"), dtype="<u4")
        for point in np.unique(points[~self._tested[points]]):
            self._test(chr(point))
        return self._differing & set(characters) if self._differing else set()

    def plain(self, text: bytes) -> bool:
        """Whether a text has no character on which the two differ."""
        return self._differing.isdisjoint(text.decode())

    def _test(self, letter: str) -> None:
        text = f"a{letter}b 1{letter}1 {letter}. .{letter}a\n{letter}b'{letter} {letter}{letter} 's{letter}"
        fast, slow = self._cutters
        if list(fast.encode(text)) != slow.encode_ordinary(text):
            self._differing.add(letter)
        self._tested[ord(letter)] = True

    @cached_property
    def _cutters(self) -> tuple[Any, Any]:
        """Both encoders, with a vocabulary in which almost any two neighbours merge unless a cut separates them."""
        from tiktoken import Encoding

        pairs = [pair for byte in range(256) for x in b"ab1 .'s\n" for pair in (bytes([x, byte]), bytes([byte, x]))]
        tokens = [bytes([byte]) for byte in range(256)] + list(dict.fromkeys(pairs))
        ranks = {token: rank for rank, token in enumerate(tokens)}
        slow = Encoding("cuts", pat_str=self._pattern, mergeable_ranks=ranks, special_tokens={})
        return _loaded(vocabulary.dump_ranks(ranks), SCHEMES[self._pattern]), slow


def available(pattern: str) -> bool:
    """Whether gigatoken is installed and supports the pattern."""
    return pattern in SCHEMES and find_spec("gigatoken") is not None


def _loaded(ranks: bytes, scheme: str) -> Any | None:
    """gigatoken with these ranks; None where it does not support them: gaps in the ranks, tokens without a merge."""
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
    """Discards gigatoken's own writes to standard output and error (file descriptors 1 and 2)."""
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
