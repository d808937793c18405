"""Personal data in text: found by form and by check digits, and masked before anyone reads a report.

A form alone accuses too many ordinary numbers, so every find is verified: cards by the Luhn check (ISO/IEC
7812-1 annex B), a known issuer prefix and its lengths, and the way cards are grouped; IBANs by the country's
length and mod 97 (ISO 13616, ISO 7064); Turkish identity numbers by their two check digits; phone numbers by
+90 or 05xx and the number of digits. `CANDIDATES` are RE2 patterns that let Arrow skip the texts that cannot
hold one.
"""

import re
from collections.abc import Callable, Iterator

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

# Country -> length of its IBAN (SWIFT, IBAN registry).
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"(..):(..)",
        "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 "
        "DE:22 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 "
        "HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 "
        "LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 "
        "QA:29 RO:24 RS:22 SA:24 SC:31 SD:18 SE:24 SI:19 SK:24 SM:27 ST:25 SV:28 TL:23 TN:24 TR:26 "
        "UA:29 VA:22 VG:24 XK:20",
    )
}


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses, Unicode letters included."""
    return (match.span() for match in _EMAIL.finditer(text))


def phones(text: str) -> Iterator[Span]:
    """Turkish numbers in full: +90 or 0090 and ten digits, or 05xx and seven more."""
    return (match.span() for match in _PHONE.finditer(text))


def cards(text: str) -> Iterator[Span]:
    """Payment card numbers: issuer, length, grouping and the Luhn check agree."""
    for match in _CARD.finditer(text):
        if _is_card(match.group()):
            yield match.span()


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers of any country, in one piece or in groups."""
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match.group(1).upper())
        end = _take(text, match.start(), length) if length else None
        if end is not None and iban_valid(re.sub(r"[ -]", "", text[match.start() : end])):
            yield match.start(), end


def identities(text: str) -> Iterator[Span]:
    """Turkish identity numbers: eleven digits, the first not zero, both check digits right."""
    for match in _IDENTITY.finditer(text):
        if identity_valid(match.group()):
            yield match.span()


def luhn_valid(digits: str) -> bool:
    """Luhn: every second digit from the right doubled, digit sums added, a multiple of ten."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def iban_valid(iban: str) -> bool:
    """ISO 7064 mod 97-10: the first four characters moved to the end, letters as 10 to 35, remainder 1."""
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def identity_valid(digits: str) -> bool:
    """Tenth digit: 7 * (odd places) - (even places); eleventh: the sum of the first ten; both modulo 10."""
    d = [int(digit) for digit in digits]
    return d[9] == (7 * sum(d[0:9:2]) - sum(d[1:8:2])) % 10 and d[10] == sum(d[:10]) % 10


# Kind -> (RE2 pattern of texts that may hold one, exact finder). Order is that of the report.
FINDERS: dict[str, tuple[str, Callable[[str], Iterator[Span]]]] = {
    "email": ("@", emails),
    "phone": (r"\+ ?90|0090|00 90|0[ (]{0,2}5\d\d", phones),
    "card": (r"\d(?:[ -]?\d){11}", cards),
    "iban": (r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]", ibans),
    "identity": (r"\d{11}", identities),
}
_ANY_LONG_NUMBER = re.compile(r"(?<!\w)\+?\d(?:[ .()-]{0,2}\d){6,}")


def mask(text: str) -> str:
    """The text with every personal datum, and every run of seven or more digits, reduced to its ends.

    Length is kept, so positions in the masked text are positions in the text.
    """
    spans = [span for _, find in FINDERS.values() for span in find(text)]
    spans += [match.span() for match in _ANY_LONG_NUMBER.finditer(text)]
    letters = list(text)
    for start, end in spans:
        for i in range(start + 2, end - 2):
            if letters[i].isalnum():
                letters[i] = "*"
    return "".join(letters)


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    separators = {character for character in found if not character.isdigit()}
    if len(separators) > 1:
        return False
    if separators and tuple(len(group) for group in re.split(r"[ -]", found)) not in _GROUPS:
        return False
    issued = any(
        first <= int(digits[: len(str(first))]) <= last and len(digits) in lengths for first, last, lengths in _ISSUERS
    )
    return issued and len(set(digits)) > 1 and luhn_valid(digits)


def _take(text: str, start: int, length: int) -> int | None:
    """Where `length` ASCII letters and digits from `start` end, single separators between them skipped."""
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
