"""Validation with Great Expectations: expectations and frames in, plain deterministic results out.

The only module that imports it. Its import costs more than a gate's own work (a gate is a process, and a run has one
per model): half of it are scipy.stats, altair and database drivers, for expectations and data sources that no gate
uses. The first two are deferred to their first use; the drivers are hidden, which Great Expectations handles as drivers
that are not installed. Both last only for the import, and save 1.5 of 3.2 s of CPU per gate:

    python -X importtime -c "from pipeline.gates import _expectations; _expectations.library()"
    python -X importtime -c "import great_expectations.expectations"
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

from pipeline.gates._rules import Expectation, Frame

_DEFERRED = ("scipy.stats", "altair")
_OPTIONAL = ("sqlalchemy", "google", "pyspark", "boto3", "azure", "trino")
_SUMMARY = ("element_count", "missing_count", "unexpected_count", "unexpected_percent", "observed_value")


class Result(NamedTuple):
    """Validation result of one expectation."""

    success: bool
    kwargs: dict[str, Any]
    """Arguments of the expectation as validated, without the batch id."""
    summary: dict[str, Any]
    """Counts and percentages; `error` when it could not be computed."""
    rows: list[int]
    """Numbers of the frame's unexpected rows."""


class _Deferred(ModuleType):
    """A stand-in for a module, which is imported when an attribute is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _light_import() -> Iterator[None]:
    importlib.import_module("scipy")  # its package loads parts on demand, so only scipy.stats is deferred
    stand_ins: dict[str, ModuleType | None] = {name: _Deferred(name) for name in _DEFERRED}
    stand_ins |= dict.fromkeys(_OPTIONAL)
    absent = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]  # None there means: not importable
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


@cache
def library() -> Any:
    """The great_expectations module, imported once: analytics off, no files, no network."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _light_import():
        import great_expectations
        import great_expectations.expectations
    return great_expectations


def validate(frames: Mapping[str, Frame], expectations: Sequence[Expectation]) -> list[Result]:
    """Validates every expectation on its frame; one result each, in the order of `expectations`.

    An expectation that cannot be computed (its column is missing) has failed, it is never skipped.
    """
    gx = library()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("profiles")
    results: dict[int, Result] = {}
    for name in dict.fromkeys(expectation.frame for expectation in expectations):
        asset = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        batch = asset.get_batch({"dataframe": _pandas(frames[name])})
        numbered = [(i, expectation) for i, expectation in enumerate(expectations) if expectation.frame == name]
        suite = gx.ExpectationSuite(name=name, expectations=[_native(gx, i, one) for i, one in numbered])
        for validated in batch.validate(suite, result_format={"result_format": "COMPLETE"}).results:
            plain = validated.to_json_dict()
            results[plain["expectation_config"]["meta"]["number"]] = _result(plain)
    return [results[i] for i in range(len(expectations))]


def _native(gx: Any, number: int, expectation: Expectation) -> Any:
    """The expectation as an object of Great Expectations, with its place in the list as meta data."""
    class_name = "".join(word.capitalize() for word in expectation.expectation.split("_"))
    cls = getattr(gx.expectations, _CLASSES.get(expectation.expectation, class_name))
    return cls(**expectation.arguments, severity=expectation.severity, meta={"number": number})


# Names whose class name is irregular.
_CLASSES = {"expect_column_pair_values_a_to_be_greater_than_b": "ExpectColumnPairValuesAToBeGreaterThanB"}


def _pandas(frame: Frame) -> Any:
    import pandas as pd

    return pd.DataFrame(frame.rows, columns=[*frame.labels, *frame.columns])


def _result(plain: dict[str, Any]) -> Result:
    kwargs = {key: value for key, value in plain["expectation_config"]["kwargs"].items() if key != "batch_id"}
    result = plain.get("result") or {}
    summary = {key: _finite(result[key]) for key in _SUMMARY if key in result}
    if error := _error(plain.get("exception_info") or {}):
        summary["error"] = error
    return Result(bool(plain["success"]), kwargs, summary, sorted(result.get("unexpected_index_list") or []))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _error(info: dict[str, Any]) -> str | None:
    """The message of an expectation that could not be computed, without traceback and metric ids."""
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("raised_exception")}
    return "; ".join(sorted(messages)) or None
