"""A gate's verdict: what every expectation found, what is waived, whether it passed; how it is told.

It holds only what is equal for equal inputs: no clock, no run id, no batch id. A waiver lets a failed
expectation pass and is shown as such; whether its date is over is judged when a model is registered.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import files, integrity
from pipeline.config.params import Waiver
from pipeline.errors import UserError
from pipeline.gates import _expectations
from pipeline.gates._rules import Example, Frame, Rule
from pipeline.paths import PACKAGE

_TEMPLATES = PACKAGE / "reporting" / "pages"
_PRINTED = 5


def reach(gate: str, frames: Mapping[str, Frame], rules: Sequence[Rule], waivers: Sequence[Waiver]) -> dict[str, Any]:
    """The verdict as plain JSON: `gate`, `passed`, `results` (one per rule) and `profile` (the frames).

    passed: every critical expectation holds or is waived.
    """
    outcomes = _expectations.judge(frames, rules)
    results = [
        _result(frames[rule.frame], rule, outcome, waivers) for rule, outcome in zip(rules, outcomes, strict=True)
    ]
    passed = all(one["success"] or one["waived"] or one["severity"] != "critical" for one in results)
    return {
        "gate": gate,
        "passed": passed,
        "results": results,
        "profile": {name: frame.rows for name, frame in frames.items()},
    }


def waivers_for(gate: str, waivers: Sequence[Waiver], rules: Sequence[Rule]) -> list[Waiver]:
    """The waivers that name this gate.

    Raises:
        UserError: one of them names an expectation that this gate has not; it would silently waive nothing.
    """
    known = {(rule.expectation, rule.column) for rule in rules}
    mine = [(i, waiver) for i, waiver in enumerate(waivers) if waiver.gate == gate]
    for i, waiver in mine:
        if (waiver.expectation, waiver.column) not in known:
            near = sorted(
                f"{expectation} on {column}"
                for expectation, column in known
                if waiver.column == column or waiver.expectation == expectation
            )
            raise UserError(
                f"params.yaml: waivers[{i}]: gate {gate} has no {waiver.expectation} on {waiver.column!r}; "
                f"one of: {', '.join(near or sorted(f'{e} on {c}' for e, c in known))}"
            )
    return [waiver for _, waiver in mine]


def write(folder: Path, verdict: Mapping[str, Any]) -> None:
    """Replaces `folder` by verdict.json and page.html."""
    with files.replace_folder(folder) as fresh:
        files.write_text(fresh / "page.html", page(verdict))
        integrity.write_json(fresh / "verdict.json", dict(verdict), beside=[fresh / "page.html"])


def page(verdict: Mapping[str, Any]) -> str:
    """The verdict as one HTML file that loads nothing; record text is hostile and escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("gate.html").render(verdict=verdict, failed=failures(verdict), shown=_number) + "\n"


def failures(verdict: Mapping[str, Any], severity: str = "critical") -> list[dict[str, Any]]:
    """The expectations of one severity that did not hold and are not waived."""
    return [
        one for one in verdict["results"] if not one["success"] and not one["waived"] and one["severity"] == severity
    ]


def table(verdict: Mapping[str, Any], folder: Path) -> str:
    """What did not hold, for a terminal: expectation, column, count, offending rows, what to change."""
    blocking, warned = failures(verdict), failures(verdict, "warning")
    waived = [one for one in verdict["results"] if one["waived"]]
    state = "passed" if verdict["passed"] else f"failed, {len(blocking)} of {len(verdict['results'])} expectations"
    lines = [f"gate {verdict['gate']}: {state}"]
    for head, entries in (("", blocking), ("warning: ", warned), ("waived: ", waived)):
        for one in entries:
            lines.append(f"  {head}{one['expectation']}  column {one['column']}  count {_number(one['count'])}")
            lines.append(f"    expected: {one['says']}")
            lines += [f"    {offender}" for offender in one["offenders"][:_PRINTED]]
            more = max(len(one["offenders"]) - _PRINTED, 0)
            lines += [f"    and {more} more on the page"] if more else []
            lines.append(
                f"    waived until {one['waiver']['until']}: {one['waiver']['reason']}"
                if one["waived"]
                else f"    change: {one['params_key']}"
            )
    lines.append(f"  page: {folder / 'page.html'}")
    return "\n".join(lines)


def _result(frame: Frame, rule: Rule, outcome: _expectations.Outcome, waivers: Sequence[Waiver]) -> dict[str, Any]:
    waiver = next((one for one in waivers if (one.expectation, one.column) == (rule.expectation, rule.column)), None)
    waived = waiver is not None and not outcome.success
    counted = rule.count or rule.column
    rows = outcome.rows if not outcome.success else []
    records = [
        {"row": _label(frame, row), **example.as_dict()}
        for row in rows
        for example in frame.examples.get((row, counted), [])
    ]
    return {
        "expectation": rule.expectation,
        "column": rule.column,
        "frame": rule.frame,
        "kwargs": outcome.kwargs,
        "severity": rule.severity,
        "says": rule.says,
        "params_key": rule.setting,
        "success": outcome.success,
        "waived": waived,
        "waiver": {"reason": waiver.reason, "until": waiver.until} if waived and waiver else None,
        "result": outcome.summary,
        "count": _count(frame, rule, rows),
        "offenders": _offenders(frame, rule, rows),
        "records": records,
    }


def _count(frame: Frame, rule: Rule, rows: Sequence[int]) -> int:
    """How many records offend where a column counts them, else how many rows of the profile do."""
    column = rule.count or rule.column
    if rule.count or any((row, column) in frame.examples for row in rows):
        return sum(int(frame.rows[row][column] or 0) for row in rows)
    return len(rows)


def _offenders(frame: Frame, rule: Rule, rows: Sequence[int]) -> list[str]:
    """Each offending row of the profile with its value, then the records behind it."""
    found = []
    other = rule.arguments.get("column_B")
    for row in rows:
        values = frame.rows[row]
        against = f", {other} {_number(values[other])}" if other else ""
        found.append(f"{_label(frame, row)}: {rule.column} {_number(values[rule.column])}{against}")
        examples = frame.examples.get((row, rule.count or rule.column), [])
        found += [_line(example) for example in examples]
    return found


def _line(example: Example) -> str:
    return f"{example.origin} ({example.id}) {example.text}" if example.id else f"{example.origin} {example.text}"


def _label(frame: Frame, row: int) -> str:
    return " ".join(str(frame.rows[row][name]) for name in frame.labels) or "all"


def _number(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
