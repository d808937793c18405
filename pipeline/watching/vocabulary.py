"""Vocabulary of a watched model's reference: the words that are known, and the centre of the embeddings."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import files
from pipeline.data import language
from pipeline.errors import UserError

WORDS_SEEN = 2_000
"""Words of a text that are looked up: a long document would cost more than its answer is worth."""
CHARACTERS_SEEN = 20_000
"""Characters of a text whose words and tokens are counted."""
_MOST_WORDS = 200_000
_VOCABULARY = "vocabulary.json"


class Vocabulary:
    """Words of the reference's training texts, in the form of `folded_words`, and the centre of its embeddings."""

    def __init__(self, words: Iterable[str], centre: Sequence[float] | None = None) -> None:
        self.words = frozenset(words)
        self.centre = None if centre is None else _unit(np.asarray(centre, np.float64))

    @classmethod
    def of(cls, texts: Iterable[str], centre: Sequence[float] | None = None) -> "Vocabulary":
        """The words of texts, the 200,000 most frequent ones where there are more."""
        counts: dict[str, int] = {}
        for text in texts:
            for word in folded_words(text):
                counts[word] = counts.get(word, 0) + 1
        if len(counts) > _MOST_WORDS:
            ordered = sorted(counts, key=lambda word: (-counts[word], word))
            return cls(ordered[:_MOST_WORDS], centre)
        return cls(counts, centre)

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary | None":
        """The vocabulary kept in the folder of a model's watch; None where there is none.

        Raises:
            UserError: a damaged file.
        """
        path = folder / _VOCABULARY
        try:
            content = files.read_json(path)
            return cls(content["words"], content.get("centre"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; remove it and run `tohum watch`, which makes it anew") from None

    def write(self, folder: Path) -> None:
        """Keeps the vocabulary in the folder of a model's watch, atomically."""
        centre = None if self.centre is None else self.centre.tolist()
        files.write_json(folder / _VOCABULARY, {"words": sorted(self.words), "centre": centre})

    def unknown(self, words: Sequence[str]) -> float | None:
        """Share of words, in the form of `folded_words`, that are not in the vocabulary; None without words."""
        return sum(word not in self.words for word in words) / len(words) if words else None

    def distance(self, embedding: Sequence[float] | npt.NDArray[np.float32]) -> float | None:
        """Cosine distance of an embedding from the centre; None without a centre, or for another width."""
        vector = np.asarray(embedding, np.float64)
        if self.centre is None or vector.shape != self.centre.shape:
            return None
        return 1.0 - float(_unit(vector) @ self.centre)


def folded_words(text: str) -> list[str]:
    """The first words of a text, each case-folded, with dotted and dotless i as one letter and every digit as 0.

    One form for every language, since the language of a short text is not known; numbers are an open class, so that
    each new one would count as an unknown word.
    """
    plain = unicodedata.normalize("NFC", text[:CHARACTERS_SEEN]).replace("İ", "i").replace("ı", "i").casefold()
    words = language.words(plain)[:WORDS_SEEN]
    return [_without_digits(word) if not word.isalpha() else word for word in words]


def _without_digits(word: str) -> str:
    return "".join("0" if character.isdigit() else character for character in word)


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The vector scaled to length 1; zeros stay zeros."""
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
