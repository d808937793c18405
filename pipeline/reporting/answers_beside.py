"""Answers of a model to instructions beside those of the model that it was trained from."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One question with its answers."""

    question: str
    expected: str
    answer: str
    right: bool
    parent: str | None
    """The parent's answer; None where it was not asked."""
    parent_right: bool


def _answers(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Answers to instructions that its measures kept."""
    return [
        answer
        for measured in model["details"].values()
        if isinstance(measured, dict)
        for answer in measured.get("answers", [])
        if isinstance(answer, dict) and {"instruction", "expected", "answer", "right"} <= answer.keys()
    ]


def asked(model: Mapping[str, Any], parent: Mapping[str, Any] | None) -> str:
    """Whether the parent's answers can stand beside this model's: `both`, `other` (questions), `no` or `alone`."""
    if parent is None or not _answers(model):
        return "alone"
    theirs = {_question(answer) for answer in _answers(parent)}
    if not theirs:
        return "no"
    return "both" if any(_question(answer) in theirs for answer in _answers(model)) else "other"


def samples(model: Mapping[str, Any], parent: Mapping[str, Any] | None) -> list[Sample]:
    """Questions with this model's answer, the expected one, and the parent's where it was asked the same."""
    theirs = {_question(answer): answer for answer in _answers(parent)} if parent else {}
    rows = [
        Sample(
            _question(answer), str(answer["expected"]), str(answer["answer"]), bool(answer["right"]),
            str(other["answer"]) if (other := theirs.get(_question(answer))) else None,
            bool(other and other["right"]),
        )
        for answer in _answers(model)
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row.parent is None, row.right))


def _question(answer: Mapping[str, Any]) -> str:
    return "\n".join(filter(None, (str(answer["instruction"]), str(answer.get("input") or ""))))
