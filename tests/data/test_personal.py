"""If these fail, a card number is trained on, an ordinary number stops a run, or a report shows personal data."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import personal
from pipeline.data.personal import FINDERS, mask, masked


def card(prefix: str, length: int) -> str:
    """A number of that issuer and length whose last digit satisfies Luhn."""
    body = (prefix + "0123456789" * 2)[: length - 1]
    return next(body + digit for digit in "0123456789" if _luhn(body + digit))


def _luhn(digits: str) -> bool:
    """Written differently from the code under test: table of doubled digits."""
    doubled = dict(zip("0123456789", "0246813579", strict=True))
    return sum(int(doubled[d] if i % 2 else d) for i, d in enumerate(digits[::-1])) % 10 == 0


def iban(country: str, account: str) -> str:
    """An account number with its two check digits: 98 minus the remainder with 00 in their place."""
    digits = "".join(str(ord(c) - 55) if c.isalpha() else c for c in account + country + "00")
    return f"{country}{98 - int(digits) % 97:02d}{account}"


def identity(first_nine: str) -> str:
    """Eleven digits of a Turkish identity number."""
    d = [int(c) for c in first_nine]
    tenth = (7 * (d[0] + d[2] + d[4] + d[6] + d[8]) - (d[1] + d[3] + d[5] + d[7])) % 10
    return first_nine + str(tenth) + str((sum(d) + tenth) % 10)


VISA, AMEX = card("41", 16), card("37", 15)
TURKISH = iban("TR", "0006100519786457841326")
BRITISH = iban("GB", "WEST12345698765432")
PERSON = identity("123456789")
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


def grouped(digits: str, *sizes: int, by: str = " ") -> str:
    parts, at = [], 0
    for size in sizes:
        parts.append(digits[at : at + size])
        at += size
    return by.join(parts)


FOUND = [
    ("email", "Yaz: ayşe.yılmaz+is@posta.example.com.tr, olur mu?"),
    ("email", "<a@b.co>"),
    ("phone", "Ara: +90 532 123 45 67"),
    ("phone", "+905321234567"),
    ("phone", "0090 (532) 123 45 67"),
    ("phone", "0532 123 45 67."),
    ("phone", "05321234567"),
    ("phone", "0(532)123-45-67"),
    ("phone", "+90 212 555 12 34"),
    ("card", f"card {VISA}"),
    ("card", grouped(VISA, 4, 4, 4, 4)),
    ("card", grouped(VISA, 4, 4, 4, 4, by="-")),
    ("card", grouped(AMEX, 4, 6, 5)),
    ("card", card("9792", 16)),
    ("card", card("2221", 16)),
    ("card", card("4", 13)),
    ("iban", TURKISH),
    ("iban", f"IBAN:{grouped(TURKISH, 4, 4, 4, 4, 4, 4, 2)} TL"),
    ("iban", TURKISH.lower()),
    ("iban", BRITISH),
    ("iban", iban("MN", "123412345678912345"[:16])),
    ("identity", f"TC {PERSON}."),
    ("identity", f"{PERSON} or {PERSON.translate(ARABIC)}"),
    ("card", f"{VISA} or {VISA.translate(ARABIC)}"),
]

NOT_FOUND = [
    ("email", "at 5 @ home, a@b, @user, user@, 3@4.5"),
    ("phone", "0212 or 0500, 12345678901, 053212345678, 0532 123, year 2053 123 45 67"),
    ("phone", "+44 7911 123456"),
    ("card", str(int(VISA) + 1)),  # Luhn fails
    ("card", grouped(VISA, 3, 5, 4, 4)),  # nobody groups a card so
    ("card", card("99", 16)),  # no such issuer
    ("card", f"0.{VISA}"),
    ("card", f"x{VISA}"),
    ("card", "4" + "0" * 15),
    ("card", "0" * 16),
    ("iban", TURKISH[:-1] + "7"),
    ("iban", TURKISH + "1"),
    ("iban", TURKISH[:-2]),
    ("iban", "XX" + TURKISH[2:]),
    ("iban", iban("TR", "ABCDEF" + "0" * 16)),  # a Turkish bank code is digits
    ("identity", str(int(PERSON) + 1)),
    ("identity", "0" + PERSON[:10]),
    ("identity", PERSON + "0"),
    ("identity", f"{PERSON}.5"),
]


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_finders_find_personal_data_that_arrow_also_selects(kind: str, text: str) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    candidate, find = FINDERS[kind]
    assert list(find(text)), f"{kind} not found in {text}"
    assert pc.match_substring_regex(pa.array([text]), candidate)[0].as_py(), "Arrow would have skipped this text"


@pytest.mark.parametrize(("kind", "text"), NOT_FOUND)
def test_finders_ignore_ordinary_numbers(kind: str, text: str) -> None:
    assert not list(FINDERS[kind][1](text))


def test_check_digits_of_published_examples() -> None:
    assert personal.luhn.is_valid("79927398713")
    assert not personal.luhn.is_valid("79927398710")
    assert personal.iban.is_valid("GB82WEST12345698765432")
    assert not personal.iban.is_valid("GB82WEST12345698765433")
    assert personal.tckimlik.is_valid("10000000146")
    assert not personal.tckimlik.is_valid("10000000147")


def test_check_digits_agree_with_the_formulas_on_random_numbers() -> None:
    rng = random.Random(11)
    for _ in range(2000):
        digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(12, 19)))
        assert personal.luhn.is_valid(digits) == _luhn(digits)
        first_nine = "1" + digits[:8]
        assert personal.tckimlik.is_valid(identity(first_nine))
        assert not personal.tckimlik.is_valid(first_nine + f"{(int(identity(first_nine)[9:]) + 1) % 100:02d}")
        assert personal.iban.is_valid(iban("TR", f"000610{digits[:12]}0000"), check_country=False)


def test_random_numbers_are_seldom_found() -> None:
    rng = random.Random(3)
    numbers = ["".join(rng.choice("0123456789") for _ in range(rng.randint(9, 20))) for _ in range(20000)]
    found = sum(any(list(find(number)) for _, find in FINDERS.values()) for number in numbers)
    assert found / len(numbers) < 0.01


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_mask_hides_personal_data_and_keeps_positions(kind: str, text: str) -> None:
    hidden = mask(text)
    assert len(hidden) == len(text)
    assert not list(FINDERS[kind][1](hidden))
    assert "*" in hidden


def test_masked_hides_texts_at_any_depth_and_keeps_scores_places_and_hashes() -> None:
    kept = {
        "by_record": "1 0 1 1 0 0 1 1", "model_sha256": "12345678" * 8, "right": True, "score": 0.5,
        "wrong": [{"id": "1234567890123456", "origin": "a.csv:12345678", "repeated": ["1234567890123456"]}],
    }  # fmt: skip
    assert masked(kept) == kept
    found = masked({"samples": ["Yaz: ada@example.com"], "wrong": [{"question": "0532 123 45 67 kimin?"}]})
    assert found == {"samples": ["Yaz: ad*@*******.*om"], "wrong": [{"question": "05** *** ** 67 kimin?"}]}


def test_finders_read_digits_of_any_script_as_arabic_numerals() -> None:
    for text, kind in ((PERSON.replace("2", "٢"), "identity"), (VISA.replace("1", "١"), "card")):
        assert list(FINDERS[kind][1](text)) == [(0, len(text))]


@given(st.text())
def test_finders_and_mask_accept_any_text(text: str) -> None:
    assert len(mask(text)) == len(text)
    for _, find in FINDERS.values():
        assert all(0 <= start < end <= len(text) for start, end in find(text))
