"""The one door to Great Expectations: rules and frames in, plain deterministic results out.

Importing it is what costs (a gate is a process, and a run has one per model): three quarters of the import is
scipy.stats, altair and database drivers, for expectations and sources that no gate uses. The first two are
deferred to their first use, the drivers are left out as Great Expectations allows for drivers that are not
installed; both only while it is imported, and nothing else in the process sees it.
"""

import importlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from pipeline.gates._rules import Frame, Rule

_DEFERRED = ("scipy.stats", "altair")
_OPTIONAL = ("sqlalchemy", "google", "pyspark", "boto3", "azure", "trino")
_SUMMARY = ("element_count", "missing_count", "unexpected_count", "unexpected_percent", "observed_value")


class Outcome(NamedTuple):
    """What Great Expectations found for one rule."""

    success: bool
    kwargs: dict[str, Any]
    """As it ran, without the batch id."""
    summary: dict[str, Any]
    """Counts and percentages; `error` when it could not be computed."""
    rows: list[int]
    """Which rows of the frame are unexpected."""


class _Deferred(ModuleType):
    """Stands for a module until something of it is used; then imports the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _light_import() -> Iterator[None]:
    importlib.import_module("scipy")  # its package loads parts on demand, so scipy.stats alone is deferred
    stand_ins: dict[str, ModuleType | None] = {name: _Deferred(name) for name in _DEFERRED}
    stand_ins |= dict.fromkeys(_OPTIONAL)
    mine = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(mine)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in mine:
            sys.modules.pop(name, None)


@cache
def door() -> Any:
    """The great_expectations module, imported once: analytics off, no files, no network."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _light_import():
        import great_expectations
        import great_expectations.expectations
    return great_expectations


def judge(frames: Mapping[str, Frame], rules: Sequence[Rule]) -> list[Outcome]:
    """Runs every rule on its frame; the outcomes in the order of `rules`.

    An expectation that cannot be computed (a column that is not there) is a failed one, never a skipped one.
    """
    gx = door()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("profiles")
    found: dict[int, Outcome] = {}
    for name in dict.fromkeys(rule.frame for rule in rules):
        asset = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        batch = asset.get_batch({"dataframe": _pandas(frames[name])})
        chosen = [(i, rule) for i, rule in enumerate(rules) if rule.frame == name]
        suite = gx.ExpectationSuite(name=name, expectations=[_expectation(gx, i, rule) for i, rule in chosen])
        for result in batch.validate(suite, result_format={"result_format": "COMPLETE"}).results:
            plain = result.to_json_dict()
            found[plain["expectation_config"]["meta"]["rule"]] = _outcome(plain)
    return [found[i] for i in range(len(rules))]


def _expectation(gx: Any, number: int, rule: Rule) -> Any:
    class_name = "".join(word.capitalize() for word in rule.expectation.split("_"))
    cls = getattr(gx.expectations, _CLASSES.get(rule.expectation, class_name))
    return cls(**rule.arguments, severity=rule.severity, meta={"rule": number})


_CLASSES = {"expect_column_pair_values_a_to_be_greater_than_b": "ExpectColumnPairValuesAToBeGreaterThanB"}


def _pandas(frame: Frame) -> Any:
    import pandas as pd

    return pd.DataFrame(frame.rows, columns=[*frame.labels, *frame.columns])


def _outcome(plain: dict[str, Any]) -> Outcome:
    kwargs = {key: value for key, value in plain["expectation_config"]["kwargs"].items() if key != "batch_id"}
    result = plain.get("result") or {}
    summary = {key: _finite(result[key]) for key in _SUMMARY if key in result}
    if error := _error(plain.get("exception_info") or {}):
        summary["error"] = error
    return Outcome(bool(plain["success"]), kwargs, summary, sorted(result.get("unexpected_index_list") or []))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _error(info: dict[str, Any]) -> str | None:
    """The message of an expectation that could not be computed; without its traceback and its metric ids."""
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("raised_exception")}
    return "; ".join(sorted(messages)) or None
