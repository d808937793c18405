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
from pipeline.config.recipe import ALL_KINDS
from pipeline.errors import UserError
from pipeline.gates import _expectations
from pipeline.gates._rules import MOST_EXAMPLES, Example, Expectation, Frame, shown
from pipeline.paths import PACKAGE

_TEMPLATES = PACKAGE / "reporting" / "pages"
_PRINTED = 5
_MOST_OFFENDERS = 500
_MOST_ROWS = 1000  # of a profile table


def reach(
    gate: str, frames: Mapping[str, Frame], expectations: Sequence[Expectation], waivers: Sequence[Waiver]
) -> dict[str, Any]:
    """The verdict as plain JSON: `gate`, `passed`, `results` (one per expectation) and `profile` (the frames).

    passed: every critical expectation succeeds or is waived. A result's `measured` has, per row of the frame, the
    measured values and the bound in words, the setting of the bound, and the record kind (null: of no kind).
    """
    validated = zip(expectations, _expectations.validate(frames, expectations), strict=True)
    results = [_result(frames[expectation.frame], expectation, result, waivers) for expectation, result in validated]
    passed = all(result["success"] or result["waived"] or result["severity"] != "critical" for result in results)
    return {
        "gate": gate,
        "passed": passed,
        "results": results,
        "profile": {name: frame.rows[:_MOST_ROWS] for name, frame in frames.items()},
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
    template = environment.get_template("gate.html")
    return template.render(verdict=verdict, sections=sections(verdict), summary=summary(verdict), shown=shown) + "\n"


def summary(verdict: Mapping[str, Any]) -> str:
    """The verdict in one sentence: rules that failed, warned and were waived, of all."""
    waived = sum(result["waived"] for result in verdict["results"])
    counts = [(len(failures(verdict)), "failed"), (len(failures(verdict, "warning")), "warned"), (waived, "waived")]
    said = ", ".join(f"{count} {word}" for count, word in counts if count)
    return f"{said or 'none failed'}, of {len(verdict['results'])} rules"


def sections(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the page by record kind, sections with failures first, and in each the failed rows first."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for result in verdict["results"]:
        for row in result["measured"]:
            records = [record for record in result["records"] if record["row"] == row["row"]] if row["failed"] else []
            state = _STATES[result["severity"]] if row["failed"] else "passed"
            entry = {"state": "waived" if row["failed"] and result["waived"] else state, "records": records}
            rows.setdefault(row["kind"] or "", []).append(entry | {"result": result, **row})
        if not result["measured"]:
            state = "passed" if result["success"] else _STATES[result["severity"]]
            finding = result["result"].get("error") or "nothing to measure"
            entry = {"state": state, "records": [], "result": result, "finding": finding, "bound": "", "row": ""}
            rows.setdefault("", []).append(entry | {"params_key": result["params_key"]})
    for entries in rows.values():
        entries.sort(key=lambda entry: _ORDER.index(entry["state"]))
    kinds = sorted(
        rows,
        key=lambda kind: (_ORDER.index(rows[kind][0]["state"]), kind not in ALL_KINDS, [*ALL_KINDS, kind].index(kind)),
    )
    return [{"kind": kind, "rows": rows[kind]} for kind in kinds]


_STATES = {"critical": "failed", "warning": "warning"}
_ORDER = ["failed", "warning", "waived", "passed"]


def failures(verdict: Mapping[str, Any], severity: str = "critical") -> list[dict[str, Any]]:
    """The results of one severity that failed and are not waived."""
    failed = [result for result in verdict["results"] if not result["success"] and not result["waived"]]
    return [result for result in failed if result["severity"] == severity]


def table(verdict: Mapping[str, Any], folder: Path) -> str:
    """The failed rules as text for a terminal: measured value and bound in words, column, count, rows, params key."""
    blocking, warned = failures(verdict), failures(verdict, "warning")
    waived = [result for result in verdict["results"] if result["waived"]]
    state = "passed" if verdict["passed"] else f"failed, {len(blocking)} of {len(verdict['results'])} rules"
    lines = [f"gate {verdict['gate']}: {state}"]
    for head, results in (("", blocking), ("warning: ", warned), ("waived: ", waived)):
        for result in results:
            lines += _lines(head, result)
    lines.append(f"  page: {folder / 'page.html'}")
    return "\n".join(lines)


def _lines(head: str, result: Mapping[str, Any]) -> list[str]:
    """One result of `table`."""
    failed = [row for row in result["measured"] if row["failed"]]
    records, keys = result["records"], dict.fromkeys(row["params_key"] for row in failed) or [result["params_key"]]
    error, hidden = result["result"].get("error"), len(records) - _PRINTED
    return [
        f"  {head}expected: {result['says']}",
        *([f"    cannot be computed: {error}"] if error else []),
        *(f"    {_measured(row)}" for row in failed[:_PRINTED]),
        *([f"    and {len(failed) - _PRINTED} more rows of this kind on the page"] if len(failed) > _PRINTED else []),
        *(f"      {place_of(record)}  {record['text']}" for record in records[:_PRINTED]),
        *([f"      and {hidden} more on the page, of {shown(result['count'])}"] if hidden > 0 else []),
        f"    {result['expectation']}  column {result['column']}  count {shown(result['count'])}",
        f"    waived until {result['waiver']['until']}: {result['waiver']['reason']}"
        if result["waived"]
        else f"    change: {', '.join(keys)}",
    ]


def _measured(row: Mapping[str, Any]) -> str:
    kind = f"{row['kind']}: " if row["kind"] else ""
    return f"{kind}{row['finding']}; allowed: {row['bound']}"


def place_of(record: Mapping[str, str]) -> str:
    """File and line of an offending record, and its id if it has one."""
    return f"{record['origin']} ({record['id']})" if record["id"] else record["origin"]


def _result(
    frame: Frame, expectation: Expectation, validated: _expectations.Result, waivers: Sequence[Waiver]
) -> dict[str, Any]:
    identity = (expectation.expectation, expectation.column)
    waiver = next((waiver for waiver in waivers if (waiver.expectation, waiver.column) == identity), None)
    waived = waiver is not None and not validated.success
    rows = validated.rows if not validated.success else []
    counted = frame.count_column(expectation.column)
    records = [
        {"row": frame.label_of(row), **example.as_dict()}
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
        "measured": _in_words(frame, expectation, rows, validated.success),
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
        compared = f", {other} {shown(values[other])}" if other else ""
        offenders.append(f"{frame.label_of(row)}: {column} {shown(values[column])}{compared}")
        offenders += [_line(example) for example in frame.examples.get((row, frame.count_column(column)), [])]
    return offenders[:_MOST_OFFENDERS]


def _in_words(frame: Frame, expectation: Expectation, failed: Sequence[int], success: bool) -> list[dict[str, Any]]:
    """Measured values and bounds of the rows, the failed ones first; at most MOST_EXAMPLES rows of each."""
    numbers = set(failed)
    passed = [row for row in range(len(frame.rows)) if row not in numbers] if success or failed else []
    return [
        {
            "row": frame.label_of(row),
            "kind": frame.kind_of(row),
            "failed": row in numbers,
            **expectation.measured(frame, row),
        }
        for row in (*failed[:MOST_EXAMPLES], *passed[:MOST_EXAMPLES])
    ]


def _line(example: Example) -> str:
    return f"{example.origin} ({example.id}) {example.text}" if example.id else f"{example.origin} {example.text}"
