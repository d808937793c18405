"""Pieces of a generated text add up to the decoded text, whatever vocabulary wrote it."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import tokenizer
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.encoders import UnencodableError
from pipeline.tokenizer.streaming import TextStream
from tests.tokenizer import foreign

TEXT = st.lists(st.sampled_from([*foreign.WORDS, "é", "\u2581", "<0x41>", "a.", "n't"]), max_size=12).map(" ".join)


@pytest.fixture(scope="module", params=foreign.KINDS)
def vocabulary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer.adopt(foreign.write(request.param, tmp_path_factory.mktemp(request.param)))


@cache
def trained() -> Tokenizer:
    """A vocabulary of ours."""
    return tokenizer.train(foreign.lines(5), 300, "gpt2")


def streamed(vocabulary: Tokenizer, ids: list[int]) -> list[str]:
    """The pieces of a text."""
    stream = TextStream(vocabulary)
    return [*(stream.add(number) for number in ids), stream.rest()]


@settings(max_examples=150)
@given(TEXT)
def test_add_gives_pieces_that_sum_to_the_decoded_text(vocabulary: Tokenizer, text: str) -> None:
    """Words would run together in a chat, or a letter of two bytes be shown as two wrong ones."""
    try:
        ids = [*vocabulary.text_prefix, *vocabulary.encode(text), *vocabulary.text_suffix]
    except UnencodableError:
        return
    pieces = streamed(vocabulary, ids)
    assert "".join(pieces) == vocabulary.decode(ids)
    assert "\ufffd" not in "".join(pieces)


@settings(max_examples=150)
@given(st.lists(st.integers(0, 299), max_size=20))
def test_add_gives_the_decoded_text_of_any_ids(ids: list[int]) -> None:
    """A byte that begins no character would swallow the letter after it."""
    vocabulary = trained()
    assert "".join(streamed(vocabulary, ids)) == vocabulary.decode(ids)


def test_add_waits_for_the_rest_of_a_character(tmp_path: Path) -> None:
    """Lost otherwise: replacement characters flash up for every emoji that is written as bytes."""
    vocabulary = tokenizer.adopt(foreign.write("byte_fallback", tmp_path))
    ids = vocabulary.encode("é🙂")  # neither is in the alphabet
    pieces = streamed(vocabulary, ids)
    assert [piece for piece in pieces if piece] == ["é", "🙂"]
    assert len(ids) == 6
    assert streamed(vocabulary, ids[:1])[-1] == "\ufffd"
