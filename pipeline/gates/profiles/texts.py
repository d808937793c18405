"""Pattern search in text columns: Arrow selects candidate texts, Python verifies them.

Also detectors of broken encoding, and the excerpts that reports show. An excerpt is masked before it is cut, so that no
report prints half a card number.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import personal
from pipeline.gates.profiles import encodings

Span = tuple[int, int]
_AROUND = 40  # characters shown on either side of a find
_WINDOW = 400  # characters masked on either side, far more than shown


class Detector(NamedTuple):
    """A two-step search for one sort of text."""

    candidate: str
    """RE2 pattern with which Arrow selects the texts that may match."""
    find: Callable[[str], Iterator[Span]]
    """Exact spans in one text."""


def _by_regex(pattern: str) -> Callable[[str], Iterator[Span]]:
    compiled = re.compile(pattern)
    return lambda text: (match.span() for match in compiled.finditer(text))


ENCODING: dict[str, Detector] = {
    "replacement_characters": Detector("\ufffd", _by_regex("\ufffd")),
    "nul_characters": Detector(r"\x00", _by_regex("\x00")),
    "control_characters": Detector(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]", _by_regex(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")),
    "mojibake": Detector(encodings.CANDIDATE, encodings.mojibake),
}
PERSONAL: dict[str, Detector] = {
    f"personal_{name}": Detector(candidate, find) for name, (candidate, find) in personal.FINDERS.items()
}
# Special tokens of any vocabulary, such as <|endoftext|>, written as text.
SPELLED = Detector(r"<\|", _by_regex(r"<\|[^|<>\s]{1,40}\|>"))


def matches(column: pa.Array, detector: Detector) -> Iterator[tuple[int, str, Span]]:
    """Row number, text and first span of every text of a column in which the detector finds something."""
    rows = np.flatnonzero(pc.fill_null(pc.match_substring_regex(column, detector.candidate), False))
    for row, text in zip(rows.tolist(), column.take(pa.array(rows)).to_pylist(), strict=True):
        span = next(detector.find(text), None)
        if span is not None:
            yield row, text, span


def excerpt(text: str, span: Span = (0, 0)) -> str:
    """At most about 100 characters around a span, personal data masked, control characters visible."""
    first, last = max(0, span[0] - _WINDOW), min(len(text), span[1] + _WINDOW)
    masked = personal.mask(text[first:last])
    start, end = max(0, span[0] - first - _AROUND), span[1] - first + _AROUND
    if span[1] - span[0] > _AROUND:
        end = span[0] - first + 2 * _AROUND
    shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in masked[start:end])
    return ("…" if first + start else "") + shown + ("…" if first + end < len(text) else "")


def decodable(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """The column with invalid UTF-8 replaced by U+FFFD, and the rows that had it (surrogates, cut letters)."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        encoded = column.cast(pa.binary()).to_pylist()
        broken = [i for i, value in enumerate(encoded) if value is not None and not _is_utf8(value)]
        texts = [None if value is None else value.decode("utf-8", "replace") for value in encoded]
        return pa.array(texts, pa.string()), broken
    return column, []


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def spelled(specials: Iterable[str]) -> Detector | None:
    """A detector of special tokens written as text; None where there is no special token."""
    pattern = "|".join(re.escape(name) for name in specials)
    return Detector(pattern, _by_regex(pattern)) if pattern else None
