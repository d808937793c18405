"""A rule: checks an answer against the record's own, for tasks whose right answer is known (verifiable rewards).

The expected answer is `output` of instructions, `chosen` of preferences. Scores are 1 and 0. Lambert et al. 2024, "Tulu
3", section 6: reinforcement learning with verifiable rewards; numbers as in GSM8K (Cobbe et al. 2021).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config.section import Section
from pipeline.data import language
from pipeline.errors import UserError
from pipeline.judges import Context, Judge, Judged

_NUMBER = re.compile(r"[-+]?\d[\d.,]*")
_GROUPED = re.compile(r"[-+]?\d{1,3}([.,])\d{3}(\1\d{3})*")
"""Thousands apart: by commas, or where there are several groups by points."""
_DECIMAL = re.compile(r"([-+]?(?:\d+|\d{1,3}(?:\.\d{3})+)),(\d+)|([-+]?(?:\d+|\d{1,3}(?:,\d{3})+))(?:\.(\d+))?")
"""Thousands by points and a decimal comma, or by commas and a decimal point."""
_WITHOUT_SIGNS = str.maketrans("", "", ".,")


class Settings(Section):
    """The check."""

    source_of: ClassVar[str] = "start"
    reads: str = Field(examples=["models/base"])
    """models/base, or models/ and the recipe's `from`: nothing else is read."""
    check: Literal["exact_match", "contains", "number"] = Field(examples=["exact_match", "contains", "number"])
    """exact_match: the answer equals the expected one, letter case folded by the record's language and outer
    punctuation ignored; contains: the expected one is part of it, in the same form; number: their last numbers are
    equal."""


def build(settings: Settings, _context: Context) -> "Rule":
    """The judge."""
    return Rule(settings.check)


class Rule(Judge):
    """1 for an answer that passes, else 0."""

    def __init__(self, check: str) -> None:
        self._check = CHECKS[check]

    def scores(self, judged: Sequence[Judged]) -> Tensor:
        """scores_E of 0 and 1. Raises UserError for a record without an expected answer."""
        return torch.tensor(
            [float(self._check(one.text, expected(one.record), str(one.record.get("language")))) for one in judged]
        )


def expected(record: Mapping[str, Any]) -> str:
    """The answer that a record has. Raises UserError if it has none."""
    found = record.get("output", record.get("chosen"))
    if not isinstance(found, str):
        raise UserError(
            f"judge rule: record {record.get('id')} has neither output nor chosen, with which an answer could be "
            "compared; set data to instructions or preferences, or take another judge"
        )
    return found


def last_number(text: str) -> float | None:
    """The last number in a text, 1,234.5 and 1.234.567,5 read as English and Turkish write them; None without any.

    A single group of three digits is thousands behind a comma and decimals behind a point: 1,234 and 1.234.
    """
    found = _NUMBER.findall(text)
    if not found:
        return None
    digits = found[-1].rstrip(".,")
    grouped = _GROUPED.fullmatch(digits)
    if grouped and (grouped[1] == "," or digits.count(".") > 1):
        return float(digits.replace(grouped[1], ""))
    parts = _DECIMAL.fullmatch(digits)
    if parts is None:  # 1.2.3 is no number
        return None
    whole, decimals = (parts[1], parts[2]) if parts[1] else (parts[3], parts[4])
    return float(f"{whole.translate(_WITHOUT_SIGNS)}.{decimals or 0}")


def _contains(answer: str, wanted: str, of: str) -> bool:
    return language.normal(wanted, of) in language.normal(answer, of)


def _number(answer: str, wanted: str, _of: str) -> bool:
    right = last_number(wanted)
    if right is None:
        raise UserError(f"judge rule: check is number, and the expected answer {wanted[:60]!r} has none")
    return last_number(answer) == right


CHECKS: dict[str, Callable[[str, str, str], bool]] = {
    "exact_match": language.exact_match,
    "contains": _contains,
    "number": _number,
}
