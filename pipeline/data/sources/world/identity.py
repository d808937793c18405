"""Invented personal identifiers with valid check digits, for planting.

Sources: card numbers, ISO/IEC 7812-1 annex B (Luhn); IBAN, ISO 13616-1 (mod 97 of ISO 7064); Turkish identity number,
check digits ten and eleven as published by the population register. E-mail domains are from RFC 2606.
"""

import random

from stdnum import iban as iban_number
from stdnum import luhn
from stdnum.tr import tckimlik

from pipeline.data.sources.world.facts import pick

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def digits(count: int, rng: random.Random) -> str:
    """`count` random decimal digits."""
    return "".join(pick("0123456789", rng) for _ in range(count))


def email(rng: random.Random) -> str:
    """An address in a reserved domain."""
    return "".join(pick(_LETTERS, rng) for _ in range(8)) + pick(("@example.com", "@example.org", "@example.net"), rng)


def phone(rng: random.Random) -> str:
    """A Turkish mobile number: +90 and an unassigned operator code."""
    number = digits(7, rng)
    return f"+90 500 {number[:3]} {number[3:5]} {number[5:]}"


def card(rng: random.Random) -> str:
    """Sixteen digits in groups of four, with a valid Luhn digit, behind a payment network's test prefix."""
    body = "411111" + digits(9, rng)
    number = body + luhn.calc_check_digit(body)
    return " ".join(number[start : start + 4] for start in range(0, 16, 4))


def iban(rng: random.Random) -> str:
    """A Turkish IBAN with an unassigned bank code and valid check digits, in groups of four."""
    account = "99999" + "0" + digits(16, rng)
    number = f"TR{iban_number.calc_check_digits(f'TR00{account}')}{account}"
    return " ".join(number[start : start + 4] for start in range(0, 26, 4))


def turkish_identity(rng: random.Random) -> str:
    """Eleven digits, the first not zero, the last two check digits."""
    body = pick("123456789", rng) + digits(8, rng)
    return body + tckimlik.calc_check_digits(body)
