"""Texts of one language by key, and numbers and dates as it writes them; each room keeps tables of its own."""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Language = Literal["en", "tr"]
_FORMATS: dict[Language, dict[str, str]] = {
    "en": {
        "decimal": ".", "thousands": ",", "percent": "{} %", "date": "{year}-{month}-{day}",
        "interval": "{low} to {high}", "and": "{start} and {last}", "or": "{start} or {last}",
    },
    "tr": {
        "decimal": ",", "thousands": ".", "percent": "%{}", "date": "{day}.{month}.{year}",
        "interval": "{low} – {high}", "and": "{start} ve {last}", "or": "{start} ya da {last}",
    },
}  # fmt: skip
"""Forms of numbers, dates and lists, the same in every table of a language: keys `format.<name>`."""


class Words:
    """The texts of one language by key, `section.name`, and numbers as this language writes them."""

    def __init__(self, language: Language, table: dict[str, str]) -> None:
        """Words from a flat table of texts with fields in the format of `str.format`."""
        self.language = language
        self.table = table

    def __call__(self, key: str, **values: Any) -> str:
        """The text of a key with its fields filled in. Raises KeyError for an unknown key or a missing field."""
        return self.table[key].format(**values)

    def count(self, key: str, number: int, **values: Any) -> str:
        """The text `<key>.one` for 1, else `<key>.many`; `{n}` is the number."""
        form = "one" if number == 1 else "many"
        return self(f"{key}.{form}", n=self.integer(number), **values)

    def has(self, key: str) -> bool:
        """Whether the table has this key."""
        return key in self.table

    def number(self, value: float, digits: int = 4) -> str:
        """A number with fixed digits after the decimal sign, groups of thousands: `0.9530`, Turkish `0,9530`."""
        return self._local(f"{value:,.{digits}f}") if math.isfinite(value) else str(value)

    def general(self, value: float, digits: int = 4) -> str:
        """A number with this many significant digits: `0.05`, `1e-05`."""
        return self._local(f"{value:.{digits}g}")

    def signed(self, value: float, digits: int = 4) -> str:
        """A difference: `+0.0120`."""
        return self._local(f"{value:+.{digits}f}")

    def signed_general(self, value: float, digits: int = 3) -> str:
        """A difference with this many significant digits: `+0.0227`."""
        return self._local(f"{value:+.{digits}g}")

    def integer(self, value: float) -> str:
        """A whole number in groups of thousands: `9,599`, Turkish `9.599`."""
        return self._local(f"{value:,.0f}")

    def percent(self, share: float, digits: int = 0) -> str:
        """A share as percent: `6.59 %`, Turkish `%6,59`."""
        return self.table["format.percent"].format(self.number(100 * share, digits))

    def interval(self, low: float, high: float, digits: int = 3) -> str:
        """The bounds of an interval: `0.834 to 0.976`."""
        return self("format.interval", low=self.number(low, digits), high=self.number(high, digits))

    def listed(self, names: list[str], conjunction: str = "format.and") -> str:
        """`lora, dora and full`."""
        start = ", ".join(names[:-1])
        return self(conjunction, start=start, last=names[-1]) if start else "".join(names)

    def date(self, iso: str) -> str:
        """A date as this language writes it: `2027-01-31`, Turkish `31.01.2027`. Other text stays as it is."""
        found = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", iso)
        return self("format.date", year=found[1], month=found[2], day=found[3]) if found else iso

    def metric(self, name: str) -> str:
        """A metric in words, for headlines; its name where there are none."""
        return self.table.get(f"metric.{name}", name)

    def _local(self, text: str) -> str:
        signs = {",": self.table["format.thousands"], ".": self.table["format.decimal"]}
        return "".join(signs.get(sign, sign) for sign in text)


@cache
def read(path: Path, language: Language) -> Words:
    """The words of a table: YAML, texts by nested keys; it is read once."""
    nested = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Words(language, dict(_flat({"format": _FORMATS[language]} | nested, "")))


def _flat(table: dict[str, Any], before: str) -> list[tuple[str, str]]:
    """`section.name` -> text."""
    rows: list[tuple[str, str]] = []
    for key, value in table.items():
        rows += _flat(value, f"{before}{key}.") if isinstance(value, dict) else [(f"{before}{key}", str(value))]
    return rows
