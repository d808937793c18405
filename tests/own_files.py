"""Files of a user's own, made by code, and the guess about them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.recipe import Kind
from pipeline.studies.guess import Guess

_GOOD, _BAD = ["hızlı", "güzel", "sağlam", "memnun"], ["geç", "kırık", "bozuk", "kötü"]


def labelled(n: int) -> list[tuple[str, str]]:
    """A header and n short texts of two labels in turn."""
    words = (_GOOD, _BAD)
    rows = [
        (
            f"{words[i % 2][i % 4]} paket {i * 7919 % 997} geldi, {words[i % 2][i // 4 % 4]} ürün {i}",
            ("iyi", "kötü")[i % 2],
        )
        for i in range(n)
    ]
    return [("text", "label"), *rows]


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """Writes a CSV file with a header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def guessed(kind: Kind, header: Sequence[str]) -> Guess:
    """The guess about a CSV file whose columns have our names."""
    form = {"name": "csv", "encoding": "utf-8", "delimiter": ",", "header": True, "quoting": "standard"}
    return Guess(kind, form, {name: name for name in header}, ())
