"""A gate's verdict: the results of all expectations, waivers, passed or failed; as JSON and text.

It is deterministic: no clock, no run id, no batch id. A waived expectation may fail and is shown as waived; whether the
waiver has expired is decided when a model is registered.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import files, integrity
from pipeline.config.params import Waiver
from pipeline.errors import UserError
from pipeline.gates import _expectations, _page
from pipeline.gates._rules import MOST_EXAMPLES, Example, Expectation, Frame
from pipeline.gates._wording import Wording, load

_PRINTED = 5
_MOST_OFFENDERS = 500
_MOST_ROWS = 1000  # of a profile table


class Judgement(NamedTuple):
    """The validated expectations of a gate, not yet in words."""

    gate: str
    frames: Mapping[str, Frame]
    expectations: Sequence[Expectation]
    waivers: Sequence[Waiver]
    validated: Sequence[_expectations.Result]
    """One per expectation."""

    def verdict(self, wording: Wording | None = None) -> dict[str, Any]:
        """The verdict as plain JSON: `gate`, `passed`, `results` (one per expectation) and `profile` (the frames).

        passed: every critical expectation succeeds or is waived. A result's `measured` has, per row of the frame, the
        measured values and the bound in words, the setting of the bound, and the record kind (null: of no kind).

        `wording`: of the sentences; None: English.
        """
        results = [
            _result(self.frames[expectation.frame], expectation, result, self.waivers, wording or load())
            for expectation, result in zip(self.expectations, self.validated, strict=True)
        ]
        passed = all(result["success"] or result["waived"] or result["severity"] != "critical" for result in results)
        return {
            "gate": self.gate,
            "passed": passed,
            "results": results,
            "profile": {name: frame.rows[:_MOST_ROWS] for name, frame in self.frames.items()},
        }


def judge(
    gate: str, frames: Mapping[str, Frame], expectations: Sequence[Expectation], waivers: Sequence[Waiver]
) -> Judgement:
    """Validates the expectations on the frames."""
    return Judgement(gate, frames, expectations, waivers, _expectations.validate(frames, expectations))


def reach(
    gate: str, frames: Mapping[str, Frame], expectations: Sequence[Expectation], waivers: Sequence[Waiver]
) -> dict[str, Any]:
    """The verdict in English, as verdict.json holds it: see `Judgement.verdict`."""
    return judge(gate, frames, expectations, waivers).verdict()


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


def write(folder: Path, verdict: Mapping[str, Any], page: str | None = None) -> None:
    """Replaces `folder` by verdict.json and page.html; `page`: None: in English."""
    with files.replace_folder(folder) as fresh:
        files.write_text(fresh / "page.html", _page.page(verdict) if page is None else page)
        integrity.write_json(fresh / "verdict.json", dict(verdict), beside=[fresh / "page.html"])


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
        *([f"      and {hidden} more on the page, of {load().shown(result['count'])}"] if hidden > 0 else []),
        f"    {result['expectation']}  column {result['column']}  count {load().shown(result['count'])}",
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
    frame: Frame,
    expectation: Expectation,
    validated: _expectations.Result,
    waivers: Sequence[Waiver],
    wording: Wording,
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
        "says": wording.sentence(expectation.statement),
        "params_key": wording.sentence(expectation.params_key),
        "success": validated.success,
        "waived": waived,
        "waiver": {"reason": waiver.reason, "until": waiver.until} if waived and waiver else None,
        "result": validated.summary,
        "measured": _in_words(frame, expectation, rows, validated.success, wording),
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
        compared = f", {other} {load().shown(values[other])}" if other else ""
        offenders.append(f"{frame.label_of(row)}: {column} {load().shown(values[column])}{compared}")
        offenders += [_line(example) for example in frame.examples.get((row, frame.count_column(column)), [])]
    return offenders[:_MOST_OFFENDERS]


def _in_words(
    frame: Frame, expectation: Expectation, failed: Sequence[int], success: bool, wording: Wording
) -> list[dict[str, Any]]:
    """Measured values and bounds of the rows, the failed ones first; at most MOST_EXAMPLES rows of each."""
    numbers = set(failed)
    passed = [row for row in range(len(frame.rows)) if row not in numbers] if success or failed else []
    return [
        {
            "row": frame.label_of(row),
            "kind": frame.kind_of(row),
            "failed": row in numbers,
            **expectation.measured(frame, row, wording),
        }
        for row in (*failed[:MOST_EXAMPLES], *passed[:MOST_EXAMPLES])
    ]


def _line(example: Example) -> str:
    return f"{example.origin} ({example.id}) {example.text}" if example.id else f"{example.origin} {example.text}"
