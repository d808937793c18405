"""If these fail, Turkish text is altered, equal texts count as different, or answers are judged by case."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.language import exact_match, fold, guess, normal, words

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LANGUAGE = st.sampled_from(["tr", "az", "en", "und"])


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("ISPARTA", "tr", "ısparta"),
        ("İZMİR", "tr", "izmir"),
        ("IĞDIR İLİ", "az", "ığdır ili"),
        ("IT IS", "en", "it is"),
        ("Straße", "en", "strasse"),
        ("  bir\t\n iki\u00a0 ", "tr", "bir iki"),
    ],
)
def test_normal_folds_case_and_space_by_language(text: str, language: str, expected: str) -> None:
    assert normal(text, language) == expected


def test_normal_tells_dotted_from_dotless_i_in_turkish_only() -> None:
    assert normal("ısı", "tr") != normal("isi", "tr")
    assert normal("ISI", "tr") == normal("ısı", "tr")
    assert normal("ISI", "en") == normal("isi", "en")


def test_normal_composes_a_dotted_capital() -> None:
    assert normal("I\u0307zmir", "tr") == normal("İzmir", "tr") == "izmir"


@settings(deadline=None)
@given(TEXT, LANGUAGE)
def test_normal_is_idempotent(text: str, language: str) -> None:
    assert normal(normal(text, language), language) == normal(text, language)


@settings(deadline=None)
@given(TEXT, LANGUAGE)
def test_normal_composes_letters(text: str, language: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert normal(decomposed, language) == normal(text, language)
    assert exact_match(decomposed, text, language)


@settings(deadline=None)
@given(TEXT, LANGUAGE)
def test_fold_keeps_every_space(text: str, language: str) -> None:
    assert fold(text, language).split() == normal(text, language).split()


def test_words_keep_apostrophes_and_combining_marks() -> None:
    assert words("Ayşe'nin kedisi, e\u0301te\u0301; don't (3)!") == [
        "Ayşe'nin",
        "kedisi",
        "e\u0301te\u0301",
        "don't",
        "3",
    ]
    assert words("हिन्दी है") == ["हिन्दी", "है"]
    assert words(" ... ") == []


def test_exact_match_ignores_outer_punctuation_and_case_but_no_letter() -> None:
    assert exact_match(' "ISPARTA." ', "ısparta", "tr")
    assert not exact_match("ISPARTA", "isparta", "tr")
    assert exact_match("Isparta", "isparta", "en")
    assert not exact_match("a-b", "ab", "en")
    assert not exact_match("...", "?", "en")
    assert not exact_match("", "a", "en")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ayşe Isparta'da yaşıyor ve bir kedisi var.", "tr"),
        ("BUGÜN HAVA ÇOK GÜZEL AMA YARIN YAĞMUR VAR", "tr"),
        ("bu da bir baska gun icin ne kadar para", "tr"),
        ("Where does Ayşe live? She lives in a house by the sea.", "en"),
        ("I think I know what you are talking about", "en"),
        ("Hello", "und"),
        ("", "und"),
        ("12345 67890 !!!", "und"),
        ("Der Hund läuft durch den Garten und bellt laut", "und"),
        ("Съешь же ещё этих мягких французских булок", "und"),
    ],
)
def test_guess_is_right_or_says_it_does_not_know(text: str, expected: str) -> None:
    assert guess(text) == expected


@settings(deadline=None)
@given(TEXT)
def test_guess_never_fails(text: str) -> None:
    assert guess(text) in {"tr", "en", "und"}
