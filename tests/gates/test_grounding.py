"""Lost otherwise: answers that a model invented are learned as facts of a document, or true ones are thrown away."""

import pytest

from pipeline.gates.profiles.grounding import grounding

TURKISH = (
    "Iğdır'ın kitapçısı Ömer Çağlar, 1.250 kitabını 1987 yılında İstanbul'a götürdü. Üç kızı ağacın altında bekledi. "
    "Dükkânın kapısı ILIK bir güz günü kapandı."
)
ENGLISH = "The mill was built in 1874 by Ada Moss for 5,137 pounds. Two sons inherited it after her death in Leeds."


@pytest.mark.parametrize(
    "answer",
    [
        "Ömer Çağlar kitaplarını İstanbul'a götürdü.",
        "Kitapları götüren kitapçı Iğdır'lıydı, adı Ömer'di.",
        "1250 kitap götürdü.",
        "3 kızı bekledi.",
        "Ağaçların altında bekledi.",
        "ılık bir günde",
        "Evet.",
        "IĞDIR",
    ],
)
def test_grounding_finds_a_turkish_answer_when_only_endings_case_or_separators_differ(answer):
    found = grounding(answer, TURKISH, "tr")
    assert found.missing == ()
    assert found.share >= 0.5


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("Kitabını 1988 yılında götürdü.", ("1988",)),
        ("Kitabını 12.500 yılında götürdü.", ("12.500",)),
        ("Kitabını Ankara'ya götürdü.", ("Ankara",)),
        ("Kitapçının adı Ömer Yılmaz.", ("Yılmaz",)),
        ("4 kızı bekledi.", ("4",)),
    ],
)
def test_grounding_names_a_number_or_name_when_the_passage_lacks_it(answer, missing):
    assert grounding(answer, TURKISH, "tr").missing == missing


def test_grounding_names_a_number_when_it_is_too_long_for_an_integer():
    """Lost otherwise: one row of digits ends the gate with Python's ValueError."""
    number = "7" * 5000
    assert grounding(f"Kitabını {number} yılında götürdü.", TURKISH, "tr").missing == (number,)


def test_grounding_measures_invented_words():
    assert grounding("A shepherd sold golden carpets near the harbour.", ENGLISH, "en").share < 0.2
    assert grounding("Denizciler akşam yemeğinde balık pişirdi.", TURKISH, "tr").share < 0.2
    assert grounding("Ada Moss built the mill.", ENGLISH, "en").share == 1.0


@pytest.mark.parametrize(
    "answer", ["It cost 5137 pounds.", "2 sons inherited it.", "They lived in Leeds.", "Yes", "No."]
)
def test_grounding_finds_an_english_answer(answer):
    found = grounding(answer, ENGLISH, "en")
    assert found.missing == ()
    assert found.share >= 0.5


def test_grounding_takes_no_language_for_granted():
    assert grounding("Die Mühle wurde 1874 gebaut.", "Im Jahr 1874 wurde die Mühle gebaut.", "de").share == 1.0
    assert grounding("", ENGLISH, "und").share == 1.0
