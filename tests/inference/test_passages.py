"""Open-book passages: BM25 over sentences, in the letters of each language."""

import random

import pytest

from pipeline.data.language import fold
from pipeline.errors import UserError
from pipeline.inference.passages import Index, Passage, passages_of, terms


def test_passages_of_gives_every_pair_of_neighbouring_sentences() -> None:
    text = "Ada lives in Bursa. Her pet is a cat. It sleeps."
    assert [passage.text for passage in passages_of(text, "en")] == [
        "Ada lives in Bursa. Her pet is a cat.", "Her pet is a cat. It sleeps.",
    ]  # fmt: skip


def test_passages_of_gives_a_short_text_as_one() -> None:
    assert passages_of("Ada lives in Bursa.", "en") == [Passage("Ada lives in Bursa.", "en")]


@pytest.mark.parametrize(
    ("written", "asked"), [("IŞIK", "ışık"), ("İZMİR", "izmir"), ("Irmak", "ırmak"), ("DİŞÇİ’nin", "dişçi")]
)
def test_terms_are_equal_in_either_case_when_the_text_is_turkish(written: str, asked: str) -> None:
    assert terms(written, "tr") == terms(asked, "tr")


def test_terms_keep_dotted_and_dotless_i_apart_when_the_text_is_turkish() -> None:
    """`str.lower` makes i of I, and of İ an i with a dot above: neither finds the word."""
    assert terms("IRI", "tr") != terms("İRİ", "tr")
    assert terms("IN", "en") == terms("in", "en")


def test_terms_drop_suffixes() -> None:
    assert terms("Ada'nın şehrindeki evler", "tr") == ["ada", "şehri", "evler"]
    assert terms("2024teki A1B2C3D4", "tr") == ["2024teki", "a1b2c3d4"]
    assert terms("Ada's gardens", "en") == ["ada", "gardens"]


def test_nearest_finds_a_turkish_passage_whose_letters_are_of_another_case() -> None:
    texts = ["Isik Hanim Izmir'de yasiyor.", "IŞIK HANIM İZMİR’DE YAŞIYOR.", "Hanımların kenti Bursa."]
    index = Index(Passage(text, "tr") for text in texts)
    assert index.nearest("Işık nerede?", "tr", 3) == [texts[1]]
    assert index.nearest("izmir", "tr", 3) == [texts[1]]


def test_nearest_gives_nothing_when_no_term_is_shared() -> None:
    assert Index(passages_of("Ada lives in Bursa.", "en")).nearest("who?", "en", 3) == []
    assert Index(passages_of("Ada lives in Bursa.", "en")).nearest("?", "en", 3) == []


def test_nearest_keeps_the_order_of_passages_when_scores_are_equal() -> None:
    texts = [f"{word} lives here." for word in ("Ada", "Ali", "Can")]
    assert Index(Passage(text, "en") for text in texts).nearest("here?", "en", 2) == texts[:2]


def test_nearest_holds_the_answer_where_a_random_passage_does_not() -> None:
    """Better than no retrieval: 40 people, a town each, told among other sentences."""
    rng = random.Random(1)
    towns = ["Bursa", "Konya", "İzmir", "Rize", "Muğla"]
    people = {f"{name}{number}": rng.choice(towns) for number in range(20) for name in ("Işıl", "Deniz")}
    passages = [
        passage
        for name, town in people.items()
        for passage in (
            *passages_of(f"{name} was glad that day. {name} lives in {town}. Nobody asked why.", "en"),
            *passages_of(
                f"Hava güzeldi. {name.replace('i', 'İ').upper()}'İN ŞEHRİ {fold(town, 'tr')} imiş. Sonra uyudu.", "tr"
            ),
        )
    ]
    index = Index(passages)

    def found(question: str, language: str, town: str) -> tuple[bool, bool]:
        nearest = " ".join(index.nearest(question, language, 1))
        chance = rng.choice(passages).text
        return fold(town, language) in fold(nearest, language), fold(town, language) in fold(chance, language)

    hits = [found(f"Where does {name} live?", "en", town) for name, town in people.items()]
    hits += [found(f"{name}'in şehri neresi?", "tr", town) for name, town in people.items()]
    by_search, by_chance = (sum(column) / len(hits) for column in zip(*hits, strict=True))
    assert by_search > 0.95
    assert by_chance < 0.4


def test_index_refuses_passages_without_a_word() -> None:
    with pytest.raises(UserError, match="open_book: the training documents hold no word"):
        Index([Passage("!?", "en")])
