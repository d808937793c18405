"""If these fail, wrongly read text is learned from, or Icelandic, Old English and Czech texts are stopped as broken."""

import pyarrow as pa
import pytest

from pipeline.gates.profiles.encodings import mojibake
from pipeline.gates.profiles.texts import ENCODING, matches

TURKISH = (
    "Sayın yetkili, Ayşe adlı müşterimiz için teşekkür ederiz; işlem güzel geçti.",
    "Yağmur yağıyordu, çocuklar dışarı çıktı ve ağaçların altında oynadı.",
    "Kadın kardeşine yazdığı mektubu bugün yolladı.",
    "GÜNEŞ BATTI, ARTIK KAPIYI KAPATALIM; YARIN ERKEN BAŞLIYORUZ.",
)
READINGS = (
    ("cp1254", "cp1252"),
    ("cp1254", "latin-1"),
    ("iso8859-9", "latin-1"),
    ("iso8859-9", "cp1252"),
    ("cp1254", "cp1250"),
    ("cp1254", "iso8859-2"),
    ("cp1254", "cp1251"),
    ("cp1254", "cp1253"),
    ("cp1254", "cp437"),
    ("cp1254", "cp850"),
    ("cp1254", "cp857"),
    ("cp1254", "mac_roman"),
    ("cp1254", "mac_turkish"),
    ("cp857", "cp1252"),
    ("cp857", "cp1254"),
    ("utf-8", "cp1252"),
    ("utf-8", "cp1254"),
    ("utf-8", "latin-1"),
    ("utf-8", "iso8859-9"),
    ("utf-8", "cp1250"),
    ("utf-8", "cp1251"),
    ("utf-8", "cp437"),
    ("utf-8", "cp857"),
    ("utf-8", "mac_roman"),
    ("utf-8", "mac_turkish"),
)


def read(text: str, written: str, read_as: str) -> str:
    """The text as a reader of another encoding gets it; undefined bytes as in ISO-8859-1."""
    characters = []
    for byte in text.encode(written):
        try:
            characters.append(bytes([byte]).decode(read_as))
        except UnicodeDecodeError:
            characters.append(chr(byte))
    return "".join(characters)


def detected(text: str) -> bool:
    return bool(list(matches(pa.array([text]), ENCODING["mojibake"])))


@pytest.mark.parametrize(("written", "read_as"), READINGS)
@pytest.mark.parametrize("text", TURKISH[:3])
def test_mojibake_finds_turkish_when_it_was_read_with_another_encoding(text: str, written: str, read_as: str) -> None:
    wrong = read(text, written, read_as)
    assert detected(wrong), wrong
    assert not detected(text)


@pytest.mark.parametrize("text", TURKISH)
def test_mojibake_finds_utf8_when_it_was_encoded_twice(text: str) -> None:
    assert detected(read(read(text, "utf-8", "cp1252"), "utf-8", "cp1252"))


def test_mojibake_finds_turkish_in_capitals_when_windows_1254_was_read_as_1252() -> None:
    assert detected(read(TURKISH[3], "cp1254", "cp1252"))


def test_mojibake_finds_mac_turkish_by_capitals_inside_words_when_it_was_read_as_windows_1252() -> None:
    assert detected(read(TURKISH[0], "mac_turkish", "cp1252"))


@pytest.mark.parametrize(
    "text",
    [
        "teþekkür 0",
        "Sayýn yetkili, Ayþe adlý müþterimiz için teþekkür ederiz; iþlem güzel geçti 0",
        "Bu gün deðil",
        "þimdi",
    ],
)
def test_mojibake_finds_short_texts_when_turkish_alone_has_the_word(text: str) -> None:
    assert detected(text)


@pytest.mark.parametrize(
    "text",
    [
        # Icelandic
        "Það er gaman að læra íslensku.",
        "Allir menn eru bornir frjálsir og jafnir öðrum að virðingu og réttindum.",
        "Þeir eru gæddir vitsmunum og samvizku, og ber þeim að breyta bróðurlega hverjum við annan.",
        "þakka þér",
        "Hafþór Júlíus Björnsson og Guðmundur Þórarinsson",
        "ÞETTA ER ÞAÐ SEM VIÐ SÖGÐUM",
        "nýja",
        "hagnýta sér",
        "þarna þola þurfa þakka hagnýta aðila við",
        # Old English, Middle English, Faroese
        "Hwæt! We Gardena in geardagum, þeodcyninga, þrym gefrunon, hu ða æþelingas ellen fremedon.",
        "Fæder ure þu þe eart on heofonum, si þin nama gehalgod",
        "and oþere",
        "and so þe kyng seyde þat he wolde oþer þing",
        "Øll menniskju eru fødd fræls og jøvn til virðingar og mannarættindi.",
        # Czech, Slovak
        "Dobrý den, to je významný a krásný nový dům.",
        "malý význam",
        "SPÄŤ A OPÄŤ, DĹŽKA",
        "rock se se žije",
        "žurnalas rajone i komiteto",
        # Others
        "Straße und Maße, große Füße, weiß, SCHLOẞ",
        "Ça va, œuvre, où, maïs, naïve, ÉTÉ, «l’été…»",
        "Der Anlaß",
        "årsak; TOTS LA EN LÍDER",
        "ANA–BABA OLMAK",
        "LÂŠ",
        "SÃO PAULO, NÃO; Âge d'or; â la carte",
        "Привет, мир. Эти слова написаны верно; Діти їдуть додому.",
        "Καλημέρα κόσμε",
        "5 m² × 3 m³ ≈ √π, ½ ¼, 20 °C, §5, 100 €",
        "├── src\n│   ├── a.py\n└── b.py  ▒▒▓▓██",
        "Der Buchstabe „Ä“ und der Buchstabe „Ö“.",
        "the word ð is /ðə/ in IPA, þorn is a letter",
        # Turkish that was read rightly
        "Şu ağaç İstanbul’da; “ılık” bir gün, çünkü öğle… kâğıt, hâlâ!",
        "ŞİMDİ İĞNE VE IŞIK",
    ],
)
def test_mojibake_ignores_text_when_it_was_read_rightly(text: str) -> None:
    assert not list(mojibake(text))


def test_mojibake_ignores_a_wrong_word_in_a_line_when_the_line_has_letters_of_the_right_encoding() -> None:
    """An article about wrong encodings quotes them."""
    assert not detected("“müşteri” yerine “müþteri” yazılmış")
    assert detected("müşteri\nmüþterimiz aradý")


@pytest.mark.parametrize(
    ("text", "shown"), [("bir müþterimiz var", "müþterimiz"), ("merhaba, GÃ¼naydÄ±n", "Ã¼"), ("ok ï»¿id", "ï»¿")]
)
def test_mojibake_gives_the_span_of_the_wrong_letters(text: str, shown: str) -> None:
    start, end = next(mojibake(text))
    assert text[start:end] == shown


def test_mojibake_finds_emoji_and_other_scripts_when_utf8_was_read_as_windows_1252() -> None:
    for text in ("güzel 😀", "Привет", "こんにちは"):
        assert detected(read(text, "utf-8", "cp1252"))
