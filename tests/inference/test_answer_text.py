"""Text of an answer in pieces: the pieces add up to the text before the first stop text."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inference.answer_text import AnswerText
from tests.fakes import ByteTokenizer


def task(opens: str = "") -> Any:
    return SimpleNamespace(tokenizer=ByteTokenizer(), opens=opens, answer=lambda text: text.removeprefix(opens))


def pieces(text: str, stops: list[str], opens: str = "") -> tuple[list[str], bool]:
    """The pieces of a text that arrives byte by byte."""
    answer = AnswerText(task(opens), stops)
    found = []
    for byte in text.encode():
        found.append(answer.add(byte))
        if answer.stopped:
            break
    if not answer.stopped:
        found.append(answer.end())
    return found, answer.stopped


@given(st.text("abİı☀", max_size=30), st.lists(st.text("abİı☀", min_size=1, max_size=4), max_size=3))
def test_answer_text_adds_up_to_the_text_before_the_first_stop(text: str, stops: list[str]) -> None:
    # the first stop text to be complete ends the answer: of those that end at one character, the longest
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    expected = text[: min(ends)[1]] if ends else text
    found, stopped = pieces(text, stops)
    assert "".join(found) == expected
    assert stopped == bool(ends)


@pytest.mark.parametrize(("text", "said"), [(" evet", "evet"), ("evet", "evet"), (" ", ""), ("", ""), ("  a", " a")])
def test_answer_text_leaves_out_the_opening_once(text: str, said: str) -> None:
    assert "".join(pieces(text, [], " ")[0]) == said


def test_answer_text_holds_back_no_more_than_may_begin_a_stop() -> None:
    answer = AnswerText(task(), ["###"])
    assert [answer.add(byte) for byte in b"a#b##"] == ["a", "", "#b", "", ""]
    assert answer.end() == "##"


def test_answer_text_never_splits_a_character() -> None:
    assert pieces("ş☀", [])[0] == ["", "ş", "", "", "☀", ""]
