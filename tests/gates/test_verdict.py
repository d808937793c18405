"""If these fail, a verdict cannot be trusted or safely opened, or a waiver waives what nobody reviewed."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.config.params import Waiver
from pipeline.errors import UserError
from pipeline.gates import _expectations, _tickets, _verdict
from pipeline.gates._rules import Example, Frame, Tally, between, equal, one_of, present, reaches
from pipeline.paths import CODE

HOSTILE = '<script src="https://evil.example/x.js"></script><img src=x onerror="alert(1)">\x1b[31m'
WAIVER = Waiver(
    gate="raw",
    expectation="expect_column_values_to_be_between",
    column="bad",
    reason="known <b>",
    until="2030-01-01",
)


def frame(bad: int = 2, text: str = "a record") -> Frame:
    made = Frame(("kind",), ("bad", "other"))
    tally = Tally()
    for i in range(bad):
        tally.add(Example(f"id{i}", f"file.csv:{i}", text))
    made.add({"kind": "documents", "bad": tally, "other": 1})
    made.add({"kind": "labelled", "bad": 0, "other": 2})
    return made


RULES = [
    between("frame", "bad", "gates.raw.max_bad", "nothing is bad", at_most=0),
    between("frame", "other", "gates.raw.max_other", "little is other", at_most=1, severity="warning"),
]


def reach(made: Frame, waivers: list[Waiver] | None = None) -> dict[str, Any]:
    return _verdict.reach("raw", {"frame": made}, RULES, waivers or [])


def test_each_form_of_rule_is_a_real_expectation_that_can_fail() -> None:
    made = Frame(("name",), ("a", "b"), nullable=True)
    made.add({"name": "x", "a": 1, "b": 2})
    made.add({"name": "y", "a": None, "b": 1})
    rules = [
        between("f", "b", "", "", at_least=1, at_most=1),
        reaches("f", "a", "b", "", ""),
        equal("f", "a", "b", "", ""),
        present("f", "a", "", ""),
        one_of("f", "name", ["x"], "", ""),
        between("f", "nowhere", "", "", at_most=1),
        between("f", "b", "", "", at_least=1, at_most=2),
    ]
    outcomes = _expectations.judge({"f": made}, rules)
    assert [one.success for one in outcomes] == [False] * 6 + [True]
    assert [one.rows for one in outcomes] == [[0], [0, 1], [0, 1], [1], [1], [], []]
    assert "does not exist" in outcomes[5].summary["error"]
    assert "0x" not in outcomes[5].summary["error"]
    assert all("batch_id" not in one.kwargs for one in outcomes)


def test_a_warning_does_not_block_and_a_waiver_lets_pass_but_is_shown() -> None:
    failed, waived = reach(frame()), reach(frame(), [WAIVER])
    assert not failed["passed"]
    assert waived["passed"]
    assert reach(frame(0))["passed"]
    one = waived["results"][0]
    assert one["waived"]
    assert not one["success"]
    assert one["waiver"]["until"] == "2030-01-01"
    assert "Waived until 2030-01-01: known &lt;b&gt;" in _verdict.page(waived)
    assert "waived" in _verdict.table(waived, Path("here"))
    assert not reach(frame(0), [WAIVER])["results"][0]["waived"]


def test_a_waiver_for_another_column_waives_nothing() -> None:
    assert not reach(frame(), [WAIVER.model_copy(update={"column": "other"})])["passed"]


def test_a_misspelt_waiver_is_an_error_that_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"waivers\[0\].*'bda'.*on bad"):
        _verdict.waivers_for("raw", [WAIVER.model_copy(update={"column": "bda"})], RULES)
    assert _verdict.waivers_for("tokens", [WAIVER], RULES) == []


def test_the_table_says_what_how_many_which_and_what_to_change() -> None:
    text = _verdict.table(reach(frame(9)), Path("reports/gates/raw"))
    for part in (
        "failed, 1 of 2",
        "expect_column_values_to_be_between",
        "column bad",
        "count 9",
        "file.csv:0 (id0)",
        "more on the page",
        "change: gates.raw.max_bad",
        "warning: ",
        "reports/gates/raw/page.html",
    ):
        assert part in text, part


class _Loads(HTMLParser):
    """Collects everything in a page that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "link", "iframe", "object", "embed", "base", "form"):
            self.found.append(tag)
        self.found += [name for name, _ in attributes if name.startswith("on") or name in ("src", "href", "action")]


def test_the_page_loads_nothing_and_escapes_hostile_text() -> None:
    made = frame(2, HOSTILE)
    made.rows[0]["kind"] = HOSTILE
    page = _verdict.page(reach(made, [WAIVER.model_copy(update={"reason": HOSTILE})]))
    loads = _Loads()
    loads.feed(page)
    assert loads.found == []
    assert not re.search(r"@import|url\(", page)
    assert "viewport" in page
    assert "&lt;script" in page


def test_a_frame_refuses_a_missing_number_that_would_pass_unseen() -> None:
    with pytest.raises(AssertionError):
        Frame((), ("a",)).add({"a": float("nan")})


def test_verdict_and_page_are_equal_in_two_processes(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.gates import test_verdict as t;"
        "t._verdict.write(Path(sys.argv[1]), t.reach(t.frame(7, t.HOSTILE), [t.WAIVER]))"
    )
    env = os.environ | {"PYTHONPATH": str(CODE), "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "other")], check=True, env=env, cwd=tmp_path)
    _verdict.write(tmp_path / "this", reach(frame(7, HOSTILE), [WAIVER]))
    assert files.sha256_of(tmp_path / "this") == files.sha256_of(tmp_path / "other")
    json.loads((tmp_path / "this" / "verdict.json").read_text(encoding="utf-8"))


def test_tickets_hold_only_the_hash_and_are_withdrawn_alone(tmp_path: Path) -> None:
    _tickets.write(tmp_path, "raw", {"documents": "a" * 64, "labelled": "b" * 64})
    _tickets.write(tmp_path, "tokens", {"documents": "c" * 64})
    assert files.read_json(tmp_path / "raw" / "documents.json") == {
        "gate": "raw",
        "kind": "documents",
        "passed": True,
        "admits": "a" * 64,
    }
    _tickets.withdraw(tmp_path, "raw")
    assert not (tmp_path / "raw").exists()
    assert (tmp_path / "tokens" / "documents.json").exists()


def test_the_door_leaves_the_process_as_it_was() -> None:
    _expectations.door()
    import altair
    import scipy.stats
    import sqlalchemy

    assert altair.Chart
    assert scipy.stats.norm
    assert sqlalchemy.Column
