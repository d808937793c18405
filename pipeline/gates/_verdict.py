"""A gate's verdict: the results of all expectations, waivers, passed or failed; as JSON, page and text.

It is deterministic: no clock, no run id, no batch id. A waived expectation may fail and is shown as waived; whether the
waiver has expired is decided when a model is registered.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import files, integrity
from pipeline.config.params import Waiver
from pipeline.errors import UserError
from pipeline.gates import _expectations
from pipeline.gates._rules import Example, Expectation, Frame
from pipeline.paths import PACKAGE

_TEMPLATES = PACKAGE / "reporting" / "pages"
_PRINTED = 5


def reach(
    gate: str, frames: Mapping[str, Frame], expectations: Sequence[Expectation], waivers: Sequence[Waiver]
) -> dict[str, Any]:
    """The verdict as plain JSON: `gate`, `passed`, `results` (one per expectation) and `profile` (the frames).

    passed: every critical expectation succeeds or is waived.
    """
    validated = zip(expectations, _expectations.validate(frames, expectations), strict=True)
    results = [_result(frames[expectation.frame], expectation, result, waivers) for expectation, result in validated]
    passed = all(result["success"] or result["waived"] or result["severity"] != "critical" for result in results)
    return {
        "gate": gate,
        "passed": passed,
        "results": results,
        "profile": {name: frame.rows for name, frame in frames.items()},
    }


def waivers_for(gate: str, waivers: Sequence[Waiver], expectations: Sequence[Expectation]) -> list[Waiver]:
    """The waivers that name this gate.

    Raises:
        UserError: one names an expectation that this gate does not have; it would silently waive nothing.
    """
    known = {(expectation.expectation, expectation.column) for expectation in expectations}
    numbered = [(i, waiver) for i, waiver in enumerate(waivers) if waiver.gate == gate]
    for i, waiver in numbered:
        if (waiver.expectation, waiver.column) not in known:
            similar = sorted(
                f"{expectation} on {column}"
                for expectation, column in known
                if waiver.column == column or waiver.expectation == expectation
            )
            raise UserError(
                f"params.yaml: waivers[{i}]: gate {gate} has no {waiver.expectation} on {waiver.column!r}; "
                f"one of: {', '.join(similar or sorted(f'{e} on {c}' for e, c in known))}"
            )
    return [waiver for _, waiver in numbered]


def write(folder: Path, verdict: Mapping[str, Any]) -> None:
    """Replaces `folder` by verdict.json and page.html."""
    with files.replace_folder(folder) as fresh:
        files.write_text(fresh / "page.html", page(verdict))
        integrity.write_json(fresh / "verdict.json", dict(verdict), beside=[fresh / "page.html"])


def page(verdict: Mapping[str, Any]) -> str:
    """The verdict as one HTML file that loads no other; record text is escaped, as it may be hostile."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("gate.html").render(verdict=verdict, failed=failures(verdict), shown=_number) + "\n"


def failures(verdict: Mapping[str, Any], severity: str = "critical") -> list[dict[str, Any]]:
    """The results of one severity that failed and are not waived."""
    failed = [result for result in verdict["results"] if not result["success"] and not result["waived"]]
    return [result for result in failed if result["severity"] == severity]


def table(verdict: Mapping[str, Any], folder: Path) -> str:
    """The failed expectations as text for a terminal: expectation, column, count, offending rows, params key."""
    blocking, warned = failures(verdict), failures(verdict, "warning")
    waived = [result for result in verdict["results"] if result["waived"]]
    state = "passed" if verdict["passed"] else f"failed, {len(blocking)} of {len(verdict['results'])} expectations"
    lines = [f"gate {verdict['gate']}: {state}"]
    for head, results in (("", blocking), ("warning: ", warned), ("waived: ", waived)):
        for result in results:
            lines += _lines(head, result)
    lines.append(f"  page: {folder / 'page.html'}")
    return "\n".join(lines)


def _lines(head: str, result: Mapping[str, Any]) -> list[str]:
    """One result of `table`."""
    hidden = max(len(result["offenders"]) - _PRINTED, 0)
    return [
        f"  {head}{result['expectation']}  column {result['column']}  count {_number(result['count'])}",
        f"    expected: {result['says']}",
        *(f"    {offender}" for offender in result["offenders"][:_PRINTED]),
        *([f"    and {hidden} more on the page"] if hidden else []),
        f"    waived until {result['waiver']['until']}: {result['waiver']['reason']}"
        if result["waived"]
        else f"    change: {result['params_key']}",
    ]


def _result(
    frame: Frame, expectation: Expectation, validated: _expectations.Result, waivers: Sequence[Waiver]
) -> dict[str, Any]:
    identity = (expectation.expectation, expectation.column)
    waiver = next((waiver for waiver in waivers if (waiver.expectation, waiver.column) == identity), None)
    waived = waiver is not None and not validated.success
    rows = validated.rows if not validated.success else []
    counted = frame.count_column(expectation.column)
    records = [
        {"row": _label(frame, row), **example.as_dict()}
        for row in rows
        for example in frame.examples.get((row, counted), [])
    ]
    count = frame.records(expectation.column, rows)
    return {
        "expectation": expectation.expectation,
        "column": expectation.column,
        "frame": expectation.frame,
        "kwargs": validated.kwargs,
        "severity": expectation.severity,
        "says": expectation.statement,
        "params_key": expectation.params_key,
        "success": validated.success,
        "waived": waived,
        "waiver": {"reason": waiver.reason, "until": waiver.until} if waived and waiver else None,
        "result": validated.summary,
        "count": len(rows) if count is None else count,
        "offenders": _offenders(frame, expectation, rows),
        "records": records,
    }


def _offenders(frame: Frame, expectation: Expectation, rows: Sequence[int]) -> list[str]:
    """Each offending row of the profile with its value, then the records behind it."""
    offenders = []
    column, other = expectation.column, expectation.arguments.get("column_B")
    for row in rows:
        values = frame.rows[row]
        compared = f", {other} {_number(values[other])}" if other else ""
        offenders.append(f"{_label(frame, row)}: {column} {_number(values[column])}{compared}")
        offenders += [_line(example) for example in frame.examples.get((row, frame.count_column(column)), [])]
    return offenders


def _line(example: Example) -> str:
    return f"{example.origin} ({example.id}) {example.text}" if example.id else f"{example.origin} {example.text}"


def _label(frame: Frame, row: int) -> str:
    return " ".join(str(frame.rows[row][name]) for name in frame.labels) or "all"


def _number(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
