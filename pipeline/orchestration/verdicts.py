"""A gate's verdict as the flow shows it: reports/gates/<gate>/verdict.json as a sentence and a table.

Record text in a verdict is hostile input: it is cut short, and characters with a meaning in markdown or HTML are
escaped.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.orchestration import graph

_FOLDER = "reports/gates/"
_WIDEST = 160
_SENTENCE = 600
_NAMED = 5


@dataclass(frozen=True)
class Verdict:
    """A gate's verdict."""

    gate: str
    passed: bool
    results: list[dict[str, Any]]

    @property
    def key(self) -> str:
        """A name Prefect accepts for an artifact."""
        return "gate-" + re.sub(r"[^a-z0-9]+", "-", self.gate.lower()).strip("-")

    def failures(self, severity: str) -> list[dict[str, Any]]:
        """The expectations of one severity that did not hold and are not waived, in the gate's order."""
        open_results = [result for result in self.results if not result["success"] and not result["waived"]]
        return [result for result in open_results if result["severity"] == severity]

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        if self.passed:
            return f"the {self.gate} gate passed"
        named = [_rule(result) for result in self.failures("critical")]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return f"the {self.gate} gate failed: {'; '.join(named[:_NAMED])}{more}; see {_FOLDER}{self.gate}/page.html"

    @property
    def markdown(self) -> str:
        """The sentence, then the rules that failed as a table, the blocking ones first."""
        sentence = f"**{cell(self.sentence, _SENTENCE)}**\n"
        failed = [*self.failures("critical"), *self.failures("warning")]
        if not failed:
            return sentence
        rows = ["| severity | measured; allowed | rule | count | offending rows | change | column |"]
        rows.append("|---|---|---|---:|---|---|---|")
        for result in failed:
            values = [result["severity"], _measured(result), result["says"], result["count"]]
            values += [_offenders(result), _keys(result), f"{result['column']}: {result['expectation']}"]
            rows.append("| " + " | ".join(map(cell, values)) + " |")
        return sentence + "\n" + "\n".join(rows) + "\n"


def of(stage: graph.Stage) -> Verdict | None:
    """The verdict that a stage wrote; None if it is no gate or did not come that far."""
    for out in stage.outs:
        path = Path(out) / "verdict.json"
        if out.startswith(_FOLDER) and path.exists():
            raw = files.read_json(path)
            return Verdict(out.removeprefix(_FOLDER), raw["passed"], raw["results"])
    return None


def cell(value: Any, widest: int = _WIDEST) -> str:
    """Text that is safe in a cell of a markdown table, at most `widest` characters of it."""
    text = " ".join(str(value).split())
    text = text if len(text) <= widest else text[: widest - 1] + "…"
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("[", "&#91;")


def _rule(result: dict[str, Any]) -> str:
    """Measured value and bound, and the setting to change."""
    return " ".join(f"{_measured(result, 1)} (change {_keys(result)} in params.yaml)".split())


def _failed(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The failed measurements of a result; none where it could not be computed, or an older version wrote it."""
    return [row for row in result.get("measured", []) if row["failed"]]


def _measured(result: dict[str, Any], most: int = _NAMED) -> str:
    rows = [f"{row['kind'] or ''} {row['finding']}; allowed: {row['bound']}".strip() for row in _failed(result)]
    if not rows:
        rows = [f"{result['expectation']} on {result['column']}: {result['count']}, expected {result['says']}"]
    return "; ".join(rows[:most]) + (f"; and {len(rows) - most} more" if len(rows) > most else "")


def _keys(result: dict[str, Any]) -> str:
    return ", ".join(dict.fromkeys(row["params_key"] for row in _failed(result))) or str(result["params_key"])


def _offenders(result: dict[str, Any]) -> str:
    places = [f"{record['origin']} {record['text']}" for record in result.get("records", [])]
    return "; ".join((places or result["offenders"])[:_NAMED])
