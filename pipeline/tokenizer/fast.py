"""gigatoken, where it is installed: tiktoken's ids and rustbpe's merges at several times their speed.

It is believed only as far as it is seen to agree. Its Unicode tables are newer than tiktoken's, so every character that
a corpus holds is shown to both once, in places where its class decides how text is cut; texts with a character on which
they differ go the slow way, and so does everything where the vocabulary's first texts come out differently.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.tokenizer import vocabulary
from pipeline.tokenizer.pretokenizer import PART, PATTERNS, parts

Ids = np.ndarray
SCHEMES = {
    PATTERNS["gpt2"].tiktoken: "gpt2",
    PATTERNS["cl100k_base"].tiktoken: "cl100k",
    PATTERNS["o200k_base"].tiktoken: "o200k",
}
"""What gigatoken calls the patterns that it cuts by as tiktoken does (tests: every character, and random text)."""
_SHOWN = 1 << 16  # bytes of a corpus's first texts that both encode


class Corpus:
    """Encodes many texts with gigatoken, those that it might cut differently with `slow`."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str, slow: Callable[[Sequence[str]], list[Ids]]) -> None:
        self._fast = _loaded(vocabulary.dump_ranks(ranks), SCHEMES[pattern])
        self._slow = slow
        self._characters = Characters(pattern)
        self._agreed: bool | None = None

    def encode(self, texts: Sequence[bytes]) -> list[Ids]:
        """The ids of each text of UTF-8, uint32."""
        strange = self._characters.strange(b"".join(texts))
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
            return self._fast.encode(text)  # type: ignore[no-any-return]
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

    def strange(self, utf8: bytes) -> set[str]:
        """The characters of these texts on which the two differ."""
        letters = np.frombuffer(utf8, dtype=np.uint8)
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


def _loaded(ranks: bytes, scheme: str) -> Any:
    from gigatoken import Tokenizer

    with TemporaryDirectory() as folder:
        path = Path(folder) / "ranks.tiktoken"
        path.write_bytes(ranks)
        return Tokenizer.from_tiktoken(path, scheme)
