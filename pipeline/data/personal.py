"""Personal data in text: detection by pattern and check digits, and masking for reports.

A pattern by itself matches too many ordinary numbers, so every candidate is verified: cards by the Luhn check (ISO/IEC
7812-1 annex B), a known issuer prefix with its lengths and the usual grouping; IBANs by mod 97 and the country's length
and structure (ISO 13616, ISO 7064); Turkish identity numbers by their two check digits; phone numbers by +90 or 05xx
and the number of digits. Check digits and the IBAN registry are python-stdnum's. It agrees with our earlier code on
300,000 random and valid numbers, except for IBANs: it covers ten more countries and checks which characters of an
account are digits. It has no card issuers and no Turkish phone numbers; these rules are here.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from stdnum import iban, luhn, numdb
from stdnum.tr import tckimlik

Span = tuple[int, int]

_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w+])(?:(?:\+|00) ?90[ ().-]{0,3}[2-5]|0[ (]{0,2}5)\d{2}"
    r"[ ).-]{0,3}\d{3}[ .-]?\d{2}[ .-]?\d{2}(?!\w)"
)
_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){11,18}(?![\w])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}")
_IDENTITY = re.compile(r"(?<![\w.,+-])[1-9]\d{10}(?![\w]|[.,]\d)")

# Issuer prefixes (first and last, as numbers of that many digits) -> lengths. Source: the schemes' published
# ranges: Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Troy, Maestro.
_ISSUERS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (4, 4, (13, 16, 19)),
    (51, 55, (16,)),
    (2221, 2720, (16,)),
    (34, 34, (15,)),
    (37, 37, (15,)),
    (300, 305, (14,)),
    (36, 36, (14,)),
    (38, 39, (14,)),
    (6011, 6011, (16, 19)),
    (644, 649, (16, 19)),
    (65, 65, (16, 19)),
    (3528, 3589, (16, 19)),
    (62, 62, (16, 17, 18, 19)),
    (9792, 9792, (16,)),
    (5018, 5018, (16,)),
    (5020, 5020, (16,)),
    (5038, 5038, (16,)),
    (6304, 6304, (16,)),
    (6759, 6763, (16,)),
)
_GROUPS = {(4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 4, 1), (4, 4, 4, 2)}


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses, Unicode letters included."""
    return (match.span() for match in _EMAIL.finditer(text))


def phones(text: str) -> Iterator[Span]:
    """Complete Turkish phone numbers: +90 or 0090 and ten digits, or 05xx and seven more."""
    return (match.span() for match in _PHONE.finditer(text))


def cards(text: str) -> Iterator[Span]:
    """Payment card numbers: issuer, length, grouping and the Luhn check are valid."""
    for match in _CARD.finditer(text):
        if _is_card(match.group()):
            yield match.span()


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers of any country, in one piece or in groups."""
    for match in _IBAN.finditer(text):
        length = _iban_length(match.group(1).upper())
        end = _take(text, match.start(), length) if length else None
        # Without the national rules, which not every bank of a country keeps to.
        if end is not None and iban.is_valid(text[match.start() : end], check_country=False):
            yield match.start(), end


def identities(text: str) -> Iterator[Span]:
    """Turkish identity numbers: eleven digits, the first not zero, both check digits right."""
    for match in _IDENTITY.finditer(text):
        if tckimlik.is_valid(_ascii(match.group())):
            yield match.span()


# Sort of data -> (RE2 pattern with which Arrow selects texts that may hold it, exact finder), in the report's order.
FINDERS: dict[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    "email": ("@", emails),
    "phone": (r"\+ ?90|0090|00 90|0[ (]{0,2}5\d\d", phones),
    "card": (r"\d(?:[ -]?\d){11}", cards),
    "iban": (r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]", ibans),
    "identity": (r"\d{11}", identities),
}
_ANY_LONG_NUMBER = re.compile(r"(?<!\w)\+?\d(?:[ .()-]{0,2}\d){6,}")


def mask(text: str) -> str:
    """The text with asterisks inside all personal data and all runs of seven or more digits; their ends stay.

    The length stays too, so positions in the masked text are positions in the text.
    """
    spans = [span for _, find in FINDERS.values() for span in find(text)]
    spans += [match.span() for match in _ANY_LONG_NUMBER.finditer(text)]
    letters = list(text)
    for start, end in spans:
        for i in range(start + 2, end - 2):
            if letters[i].isalnum():
                letters[i] = "*"
    return "".join(letters)


_NO_TEXT = ("id", "origin", "record", "repeated")  # places and ids of records
_HASH = re.compile(r"[0-9a-f]{32,}")


def masked(value: Any) -> Any:
    """JSON with personal data masked in all its texts; scores by record, ids, origins and hashes stay."""
    if isinstance(value, str):
        return value if _HASH.fullmatch(value) else mask(value)
    if isinstance(value, dict):
        return {
            key: one if key in _NO_TEXT or str(key).endswith("by_record") else masked(one) for key, one in value.items()
        }
    return [masked(one) for one in value] if isinstance(value, list | tuple) else value


def _is_card(number: str) -> bool:
    digits = _ascii(re.sub(r"\D", "", number))
    separators = {character for character in number if not character.isdigit()}
    if len(separators) > 1:
        return False
    if separators and tuple(len(group) for group in re.split(r"[ -]", number)) not in _GROUPS:
        return False
    issued = any(
        first <= int(digits[: len(str(first))]) <= last and len(digits) in lengths for first, last, lengths in _ISSUERS
    )
    return issued and len(set(digits)) > 1 and luhn.is_valid(digits)


def _ascii(digits: str) -> str:
    """Decimal digits of any script as 0 to 9: the patterns match them all, stdnum only these."""
    return digits if digits.isascii() else "".join(str(int(digit)) for digit in digits)


@cache
def _iban_length(country: str) -> int | None:
    """Characters of a country's IBAN by the registry, None for a country without one.

    The account part is written there as fields such as 5!n1!n16!c: a length and a character class each.
    """
    structure = numdb.get("iban").info(country)[0][1].get("bban")
    return None if structure is None else 4 + sum(map(int, re.findall(r"(\d+)!", structure)))


def _take(text: str, start: int, length: int) -> int | None:
    """End of `length` ASCII letters and digits from `start` on, single separators skipped; None if there is none."""
    count, i = 0, start
    while i < len(text) and count < length:
        character = text[i]
        if character.isascii() and character.isalnum():
            count += 1
        elif character not in " -" or text[i - 1] in " -":
            return None
        i += 1
    whole = count == length and not (i < len(text) and text[i].isalnum())
    return i if whole else None
