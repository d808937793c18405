"""Rules of the policy in the words of a language: the policy's result holds the key and the values of each sentence."""

from collections.abc import Mapping
from typing import Any

from pipeline.reporting.in_words import dimension_in_words
from pipeline.reporting.wording import Words

_SIGNED = frozenset({"gain", "low", "high"})


def name(rule: Mapping[str, Any], words: Words) -> str:
    """The rule's name: `accuracy not worse`."""
    return words(f"policy.rule {rule['kind']}", metric=rule["values"].get("metric", ""))


def sentence(rule: Mapping[str, Any], words: Words) -> str:
    """The rule's finding; an obstacle and the reasons of waivers stand as they were written."""
    return words(f"policy.{rule['key']}", **{key: _shown(key, value, words) for key, value in rule["values"].items()})


def _shown(key: str, value: Any, words: Words) -> str:
    if key == "slices":
        return "; ".join(_slice(row, words) for row in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{metric} {words.general(margin, 4)}" for metric, margin in value.items())
    if key == "verdict":
        return words(f"verdict.{value}")
    if isinstance(value, float):
        return words.signed_general(value, 3) if key in _SIGNED else words.general(value, 4)
    return words.integer(value) if isinstance(value, int) else str(value)


def _slice(row: Mapping[str, Any], words: Words) -> str:
    return words(
        "policy.slice", metric=row["metric"], slice=dimension_in_words(row["dimension"], row["value"], words),
        candidate=words.general(row["candidate"], 3), champion=words.general(row["champion"], 3),
        records=words.integer(row["records"]),
    )  # fmt: skip
