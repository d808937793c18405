"""The page of a gate's verdict: the rules by record kind, failed ones first, with their values, bounds and settings.

One HTML file that loads no other; record text is escaped, as it may be hostile.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.config.recipe import ALL_KINDS
from pipeline.gates._wording import Wording, load
from pipeline.paths import PACKAGE

_TEMPLATES = PACKAGE / "reporting" / "pages"
_STATES = {"critical": "failed", "warning": "warning"}
_ORDER = ["failed", "warning", "waived", "passed"]


def page(verdict: Mapping[str, Any], wording: Wording | None = None) -> str:
    """The verdict as HTML.

    Args:
        verdict: with the sentences of this language (`Judgement.verdict(wording)`).
        wording: of the page; None: English.
    """
    wording = wording or load()
    words = wording.words
    html = _environment().get_template("gate.html").render(
        language=words.language, t=words, count=words.count, date=words.date, has=words.has, verdict=verdict,
        sections=sections(verdict, wording), summary=summary(verdict, wording), shown=wording.shown,
    )  # fmt: skip
    return html + "\n"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def summary(verdict: Mapping[str, Any], wording: Wording | None = None) -> str:
    """The verdict in one sentence: rules that failed, warned and were waived, of all."""
    words = (wording or load()).words
    results = verdict["results"]
    broken = [result for result in results if not result["success"] and not result["waived"]]
    counts = {
        "failed": sum(result["severity"] == "critical" for result in broken),
        "warning": sum(result["severity"] == "warning" for result in broken),
        "waived": sum(result["waived"] for result in results),
    }
    parts = [words(f"summary.{name}", n=words.integer(count)) for name, count in counts.items() if count]
    return words("summary.whole", parts=", ".join(parts) or words("summary.none"), n=words.integer(len(results)))


def sections(verdict: Mapping[str, Any], wording: Wording | None = None) -> list[dict[str, Any]]:
    """The rows of the page by record kind, sections with failures first, and in each the failed rows first."""
    words = (wording or load()).words
    rows: dict[str, list[dict[str, Any]]] = {}
    for result in verdict["results"]:
        for row in result["measured"]:
            records = [record for record in result["records"] if record["row"] == row["row"]] if row["failed"] else []
            state = _STATES[result["severity"]] if row["failed"] else "passed"
            state = "waived" if row["failed"] and result["waived"] else state
            shown = {"state": state, "records": records, "result": result, "foreign": False}
            rows.setdefault(row["kind"] or "", []).append(shown | row)
        if not result["measured"]:
            state = "passed" if result["success"] else _STATES[result["severity"]]
            error = result["result"].get("error")
            entry: dict[str, Any] = {"state": state, "records": [], "result": result, "bound": "", "row": ""}
            entry |= {"finding": error or words("nothing"), "foreign": bool(error)}
            rows.setdefault("", []).append(entry | {"params_key": result["params_key"]})
    for entries in rows.values():
        entries.sort(key=lambda entry: _ORDER.index(entry["state"]))
    kinds = sorted(
        rows,
        key=lambda kind: (_ORDER.index(rows[kind][0]["state"]), kind not in ALL_KINDS, [*ALL_KINDS, kind].index(kind)),
    )
    return [{"kind": kind, "rows": rows[kind]} for kind in kinds]
