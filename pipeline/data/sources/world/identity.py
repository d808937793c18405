"""Invented personal identifiers with valid check digits, for planting.

Sources: card numbers, ISO/IEC 7812-1 annex B (Luhn); IBAN, ISO 13616-1 (mod 97 of ISO 7064); Turkish identity
number, check digits ten and eleven as published by the population register. E-mail domains are those of RFC
2606.
"""

import random

from pipeline.data.sources.world.facts import pick

_CASELESS = "abcdefghijklmnopqrstuvwxyz"


def digits(count: int, rng: random.Random) -> str:
    """`count` random decimal digits."""
    return "".join(pick("0123456789", rng) for _ in range(count))


def email(rng: random.Random) -> str:
    """An address in a reserved domain."""
    return "".join(pick(_CASELESS, rng) for _ in range(8)) + pick(("@example.com", "@example.org", "@example.net"), rng)


def phone(rng: random.Random) -> str:
    """A Turkish mobile number: +90, then an operator code that is not assigned."""
    number = digits(7, rng)
    return f"+90 500 {number[:3]} {number[3:5]} {number[5:]}"


def card(rng: random.Random) -> str:
    """Sixteen digits in groups of four, with a valid Luhn digit, behind a payment network's test prefix."""
    body = "411111" + digits(9, rng)
    doubled = [int(digit) * (2 if place % 2 == 0 else 1) for place, digit in enumerate(body)]
    check = -sum(value - 9 if value > 9 else value for value in doubled) % 10
    number = f"{body}{check}"
    return " ".join(number[start : start + 4] for start in range(0, 16, 4))


def iban(rng: random.Random) -> str:
    """A Turkish IBAN of a bank code that is not assigned, with valid check digits."""
    account = "99999" + "0" + digits(16, rng)
    check = 98 - int(account + "292700") % 97  # T = 29, R = 27, 00 in the place of the check digits
    number = f"TR{check:02d}{account}"
    return " ".join(number[start : start + 4] for start in range(0, 26, 4))


def turkish_identity(rng: random.Random) -> str:
    """Eleven digits of which the last two check the others; the first is not zero."""
    body = [int(pick("123456789", rng)), *(int(digit) for digit in digits(8, rng))]
    tenth = (7 * sum(body[0:9:2]) - sum(body[1:8:2])) % 10
    return "".join(map(str, [*body, tenth, (sum(body) + tenth) % 10]))
