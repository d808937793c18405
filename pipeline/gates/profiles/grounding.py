"""Grounding of answers: whether an answer about a passage stands in that passage, measured by words.

Three figures of an answer, deterministic and without a model:

- the share of its content words that the passage holds. Words are compared by their first letters, at most five (for
  Turkish Can et al. 2008, "Information retrieval on Turkish texts", JASIST 59(3), section 4.2: truncation to five
  letters retrieves as well as a stemmer), fewer in short words, so that case endings and a softened last consonant do
  not count: kitap, kitabı;
- its numbers that the passage lacks: digits are compared, whatever separates thousands; up to ten a word counts;
- its names that the passage lacks: capitalised words that begin no sentence, compared by up to six letters.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data import language as _language
from pipeline.data.tables import batches
from pipeline.gates._rules import Example, Frame, Tally
from pipeline.gates.profiles import texts as _texts

if TYPE_CHECKING:
    from pipeline.gates.raw import Grounding as Settings

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"(?:^|[.!?…:]['\"”’)]*\s+|\n)\W*")
_SHORTEST = 3
"""Letters of the shortest content word."""
_WORD_LETTERS, _NAME_LETTERS = 5, 6
_SHARE = 0.6
_NUMERALS = {
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
    "tr": ["sıfır", "bir", "iki", "üç", "dört", "beş", "altı", "yedi", "sekiz", "dokuz", "on"],
}
_SHOWN = (0, 80)
"""Characters of an answer that a report shows."""


@dataclass(frozen=True)
class Grounding:
    """How far an answer stands in its passage."""

    share: float
    """Share of the content words that occur; 1 for an answer without any, such as yes or no."""
    missing: tuple[str, ...]
    """Numbers and names of the answer that do not occur."""


def grounding(answer: str, passage: str, language: str) -> Grounding:
    """The grounding of an answer in its passage, both in a language (ISO 639-1, or und)."""
    prefixes, numbers = _of_passage(passage, language)
    words = _words(answer, language)
    content = [word for word in words if _is_content(word, language)]
    held = sum(_stem(word, _WORD_LETTERS) in prefixes for word in content)
    missing = [number for number in _numbers(answer) if not _has_number(number, numbers, prefixes)]
    missing += [name for name in _names(answer) if not _has_name(name, language, prefixes)]
    return Grounding(held / len(content) if content else 1.0, tuple(dict.fromkeys(missing)))


@lru_cache(maxsize=64)
def _of_passage(passage: str, language: str) -> tuple[frozenset[str], frozenset[str]]:
    """Every beginning of its words, three to six letters long, and whole words; the digits of its numbers."""
    words = set(_words(passage, language))
    beginnings = {word[:n] for word in words for n in range(_SHORTEST, _NAME_LETTERS + 1)}
    return frozenset(beginnings | words), frozenset(map(_digits, _numbers(passage)))


def _words(text: str, language: str) -> list[str]:
    """Case-folded words, each up to its apostrophe: İzmir'de is izmir."""
    return [re.split("['’]", word)[0] for word in _language.words(_language.fold(text, language))]


def _is_content(word: str, language: str) -> bool:
    if len(word) < _SHORTEST or not any(character.isalpha() for character in word):
        return False
    return not any(word in _language.FUNCTION_WORDS[code] for code in ("en", "tr") if language in (code, "und"))


def _stem(word: str, most: int, share: float = _SHARE) -> str:
    """The first letters that stand for all forms of a word: a share of them, three at least."""
    return word[: min(most, max(_SHORTEST, -int(-len(word) * share // 1)))]


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(text)


def _digits(number: str) -> str:
    return re.sub("[.,]", "", number).lstrip("0") or "0"


def _has_number(number: str, numbers: frozenset[str], prefixes: frozenset[str]) -> bool:
    digits = _digits(number)
    if digits in numbers:
        return True
    # Python refuses to read an integer of more than 4,300 digits
    return (
        len(digits) <= 2 and int(digits) <= 10 and any(words[int(digits)] in prefixes for words in _NUMERALS.values())
    )


def _names(text: str) -> Iterator[str]:
    """Capitalised words that do not begin a sentence."""
    first = {match.end() for match in _SENTENCE.finditer(text)}
    for match in re.finditer(_language.WORD, text):
        word = re.split("['’]", match[0])[0]
        if match.start() not in first and len(word) >= _SHORTEST and word[0].isupper():
            yield word


def _has_name(name: str, language: str, prefixes: frozenset[str]) -> bool:
    folded = _language.fold(name, language)
    return folded[: min(_NAME_LETTERS, max(_SHORTEST, len(folded) - 1))] in prefixes


def profile(settings: "Settings", raw: Path) -> Frame:
    """Per source with passages (data/raw/passages.parquet): its answers, and those that do not stand in theirs."""
    columns = ("answers", "ungrounded", "ungrounded_share", "without_record")
    frame = Frame(("source",), columns, counts={"ungrounded_share": "ungrounded"}, kind="instructions")
    if not (path := raw / "passages.parquet").is_file():
        return frame
    passages = Counter(name for batch in batches(path, ["source"]) for name in batch["source"].to_pylist())
    answers: Counter[str] = Counter()
    tallies = {source: Tally() for source in passages}
    for row, passage in _beside(path, raw / "instructions.parquet"):
        answers[row["source"]] += 1
        found = grounding(row["output"], passage, row["language"])
        if found.share < settings.min_share or found.missing:
            tallies[row["source"]].add(_example(row, found))
    for source, n in sorted(passages.items()):
        tally = tallies[source]
        share = tally.count / answers[source] if answers[source] else 0.0
        counts = (answers[source], tally, share, n - answers[source])
        frame.add({"source": source} | dict(zip(columns, counts, strict=True)))
    return frame


def _beside(passages: Path, instructions: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The records that have a passage, each with it: both files are in the order in which they were collected."""
    waiting = (row for batch in batches(passages) for row in batch.to_pylist())
    row = next(waiting, None)
    for batch in batches(instructions, ["id", "source", "origin", "language", "output"]):
        for record in batch.to_pylist():
            if row is not None and (record["id"], record["source"]) == (row["id"], row["source"]):
                yield record, row["passage"]
                row = next(waiting, None)


def _example(row: dict[str, Any], found: Grounding) -> Example:
    missing = _texts.excerpt(", ".join(found.missing[:5]), _SHOWN)
    words = f"{found.share:.0%} of its words in the passage" + (f", not {missing}" if missing else "")
    return Example(row["id"], row["origin"], f"{_texts.excerpt(row['output'], _SHOWN)} ({words})")
