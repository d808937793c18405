"""Passages nearest to a question by BM25 (bm25s), for open-book answers.

    index = Index(passages_of("Ada lives in Bursa. Her pet is a cat. ...", "en"))
    index.nearest("Where does Ada live?", "en", 1)

Terms are the words in the normal form of the text's language, so that DIŞARI matches dışarı in Turkish (dotted and
dotless i), without what follows an apostrophe (Ada'nın, Ada's: ada). Turkish words without a digit are cut to five
letters, which searches as well as a lemmatizer there (Can et al. 2008, "Information Retrieval on Turkish Texts", F5).
Scores: BM25 with k1 = 1.5 and b = 0.75 in Lucene's form (Lù 2024, "BM25S", section 2). Equal scores are in the order of
the passages.
"""

import logging
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pipeline.data.language import fold, words
from pipeline.errors import UserError

_SENTENCE = re.compile(r"(?<=[.!?”\"])\s+(?=[^\W\d_])")
_APOSTROPHE = re.compile("['’]")
_DIGIT = re.compile(r"\d")
_LETTERS = {"tr": 5, "az": 5}  # of an agglutinative language's word that are kept


class Passage(NamedTuple):
    """Neighbouring sentences of a text, and its language (ISO 639-1)."""

    text: str
    language: str


def passages_of(text: str, language: str, sentences: int = 2) -> list[Passage]:
    """Every run of so many neighbouring sentences; a text with fewer is one passage."""
    parts = _SENTENCE.split(text)
    return [Passage(" ".join(parts[at : at + sentences]), language) for at in range(max(1, len(parts) - sentences + 1))]


class Index:
    """BM25 index of passages; equal ones count once."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        """Index of the passages.

        Raises:
            UserError: no passage has a word.
        """
        import bm25s

        self.passages = list(dict.fromkeys(passages))
        table = [terms(*passage) for passage in self.passages]
        if not any(table):
            raise UserError(
                "open_book: the training documents hold no word; give the split train texts, or set it null"
            )
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import asks for debug lines
        self._bm25 = bm25s.BM25()
        self._bm25.index(table, show_progress=False)

    def nearest(self, question: str, language: str, count: int) -> list[str]:
        """The nearest passages, best first; none that shares no term with the question."""
        asked = self._bm25.get_tokens_ids(terms(question, language))
        if not asked:
            return []
        scores = self._bm25.get_scores_from_ids(asked)
        best = np.argsort(-scores, kind="stable")[:count]
        return [self.passages[at].text for at in best if scores[at] > 0]


def terms(text: str, language: str) -> list[str]:
    """The search terms of a text, in order."""
    stems = [_APOSTROPHE.split(word)[0] for word in words(fold(text, language))]
    letters = _LETTERS.get(language)
    return [stem if _DIGIT.search(stem) else stem[:letters] for stem in stems]
