"""Texts one after the other: a word counted twice, or a letter of the neighbour's in a text, is seen by nobody."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tokenizer import utf8
from pipeline.tokenizer.utf8 import Utf8


def utf8_of(texts: list[str]) -> Utf8:
    return Utf8.column(pa.array(texts, pa.string()))


TEXTS = st.lists(st.text("ab ışĞ\t\n\x0b\x0c\r\x08\x0e\x1c\u3000", max_size=12), min_size=1, max_size=12)


@given(TEXTS, st.data())
def test_words_are_runs_without_ascii_white_space(texts: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(texts)))
    last = data.draw(st.integers(first, len(texts)))
    expected = sum(len(re.findall(rb"[^ \t\n\r\x0b\x0c]+", text.encode())) for text in texts[first:last])
    assert utf8_of(texts).words(first, last) == expected


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_words_are_counted_across_steps(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utf8, "_CACHED", step)
    texts = ["bir iki  üç", "", " dört", "beş ", "altı\nyedi", "sekiz"]
    assert utf8_of(texts).words(0, len(texts)) == 8
    assert utf8_of(texts).words(1, 4) == 2


@given(TEXTS, st.data())
def test_column_reads_an_arrow_array_without_a_copy(texts: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(texts) - 1))
    found = Utf8.column(pa.array(["ö", *texts, "x"], pa.string())[1 + first : 1 + len(texts)])
    assert found.cut() == utf8_of(texts[first:]).cut() == [text.encode() for text in texts[first:]]


def test_column_reads_empty_texts() -> None:
    """Its buffer may be missing."""
    empty = Utf8.column(pa.array(["", ""], pa.string()))
    assert (empty.cut(), empty.words(0, 2), utf8_of([]).cut()) == ([b"", b""], 0, [])


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.string()])
def test_column_refuses_other_layouts(kind: pa.DataType) -> None:
    """Read as strings its bytes are some other text, and nobody would see it."""
    texts = ["bir", None] if kind == pa.string() else ["bir", "iki"]
    with pytest.raises(ValueError, match="expected strings without nulls, found"):
        Utf8.column(pa.array(texts, kind))
