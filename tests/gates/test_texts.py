"""If these fail, broken encoding reaches the model, or a report shows what it must not."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gates.profiles import texts as _texts
from pipeline.gates.profiles.texts import ENCODING, decodable, excerpt, matches


def found(check: str, text: str) -> bool:
    return bool(list(matches(pa.array([text]), ENCODING[check])))


@pytest.mark.parametrize("text", ["Günaydın", "çşğıİöü", "“Quote’s” — €5", "àéîõü ÀÉÎÕÜ", "Ångström"])
@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
def test_mojibake_is_found_in_text_of_a_wrong_encoding(text: str, codec: str) -> None:
    spoilt = text.encode("utf-8").decode(codec, errors="ignore")
    assert found("mojibake", spoilt), spoilt
    assert not found("mojibake", text)


@pytest.mark.parametrize("text", ["SÃO PAULO, NÃO", "Âge d'or", "Ärger über Öl", "â la carte", "Å, Ä og Ö"])
def test_mojibake_ignores_accented_capitals(text: str) -> None:
    assert not any(found(check, text) for check in ENCODING)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        ("replacement_characters", "a\ufffdb"),
        ("nul_characters", "a\x00b"),
        ("control_characters", "a\x07b"),
        ("control_characters", "a\x7fb"),
    ],
)
def test_encoding_detectors_find_their_damage(check: str, text: str) -> None:
    assert found(check, text)
    assert not found(check, "a\tb\r\nc")


def test_decodable_finds_lone_surrogates() -> None:
    raw = pa.array([b"fine", b"lone \xed\xa0\x80 half", None, b"cut \xc3"], pa.binary()).view(pa.string())
    texts, broken = decodable(raw)
    assert broken == [1, 3]
    assert texts.to_pylist()[0] == "fine"
    assert "\ufffd" in texts.to_pylist()[1]


def test_excerpt_never_shows_a_number_that_its_cut_would_hide_from_the_mask() -> None:
    number = "4111111111111111"
    text = "x" * 30 + f" {number} " + "y" * 5000
    for start in range(0, 60):
        shown = excerpt(text, (start, start + 1))
        assert number[2:10] not in shown
        assert number[6:14] not in shown


@given(st.text(), st.integers(0, 50), st.integers(0, 50))
def test_excerpt_is_short_printable_text(text: str, start: int, length: int) -> None:
    shown = excerpt(text, (min(start, len(text)), min(start + length, len(text))))
    assert shown.isprintable()
    assert len(shown) <= 12 * 130


def test_spelled_finds_special_tokens_in_text() -> None:
    detector = _texts.spelled(["<|endoftext|>", "<|user|>"])
    assert detector is not None
    assert [row for row, _, _ in matches(pa.array(["a", "b <|user|>", "<|use", "<|endoftext|>"]), detector)] == [1, 3]
    assert _texts.spelled([]) is None
