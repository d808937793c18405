"""If these fail, a verdict is wrong or unsafe to open, or a waiver waives an expectation that was not reviewed."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import config, files
from pipeline.config.params import Waiver
from pipeline.errors import UserError
from pipeline.gates import _expectations, _page, _run, _tickets, _verdict
from pipeline.gates._rules import (
    Condition,
    Example,
    Frame,
    Row,
    Tally,
    at_least,
    at_most,
    equals,
    measured,
    one_of,
    reaches,
    suite,
    warning,
    within,
    zero,
)
from pipeline.paths import CODE
from tests.gates.builders import GATES, Raw

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


ROWS: list[Row] = [
    ("frame", "bad", zero("gates.raw.max_bad"), "nothing is bad"),
    ("frame", "other", warning(at_most("max_other")), "little is other"),
]
EXPECTATIONS = suite("gates.raw", SimpleNamespace(max_other=1), ROWS)


def reach(made: Frame, waivers: list[Waiver] | None = None) -> dict[str, Any]:
    return _verdict.reach("raw", {"frame": made}, EXPECTATIONS, waivers or [])


def test_conditions_are_real_expectations_that_can_fail() -> None:
    made = Frame(("name",), ("a", "b"), nullable=True)
    made.add({"name": "x", "a": 1, "b": 2})
    made.add({"name": "y", "a": None, "b": 1})
    rows: list[Row] = [
        ("f", "b", within(1, 1, "key"), ""),
        ("f", "b", at_least(2, "key"), ""),
        ("f", "b", at_most(1, "key"), ""),
        ("f", "a", reaches("b", "key"), ""),
        ("f", "a", equals("b", "key"), ""),
        ("f", "a", measured("key"), ""),
        ("f", "name", one_of(["x"], "key"), ""),
        ("f", "nowhere", at_most(1, "key"), ""),
        ("f", "b", within(1, 2, "key"), ""),
    ]
    results = _expectations.validate({"f": made}, suite("gates.raw", None, rows))
    assert [result.success for result in results] == [False] * 8 + [True]
    assert [result.rows for result in results] == [[0], [1], [0], [0, 1], [0, 1], [1], [1], [], []]
    assert "does not exist" in results[7].summary["error"]
    assert "0x" not in results[7].summary["error"]
    assert all("batch_id" not in result.kwargs for result in results)


def test_suite_reads_bounds_and_params_keys_from_the_settings() -> None:
    settings = SimpleNamespace(share=SimpleNamespace(low=0.25, high=0.5), size=3)
    rows: list[Row] = [
        ("f", "a", at_least("share.low"), "enough"),
        ("f", "b", within("share.low", "share.high", "gates.x.share"), "within"),
        ("f", "c", warning(at_most("size")), "small"),
    ]
    first, second, third = suite("gates.x", settings, rows)
    assert (first.arguments, first.params_key) == ({"min_value": 0.25, "column": "a"}, "gates.x.share.low")
    assert second.arguments == {"min_value": 0.25, "max_value": 0.5, "column": "b"}
    assert second.params_key == "gates.x.share"
    assert (third.severity, third.params_key, first.severity) == ("warning", "gates.x.size", "critical")
    with pytest.raises(AttributeError):
        suite("gates.x", settings, [("f", "a", at_most("nothing"), "")])


def test_a_share_counts_the_records_of_its_count_column() -> None:
    made = Frame((), ("share", "number"), counts={"share": "number"})
    made.add({"share": 0.5, "number": Tally(7, [Example("id", "origin", "text")])})
    assert (made.count_column("share"), made.records("share", [0])) == ("number", 7)
    assert made.records("number", [0]) == 7
    plain = Frame((), ("share",))
    plain.add({"share": 0.5})
    assert plain.records("share", [0]) is None


def test_verdict_passes_with_a_warning_or_a_waiver_and_shows_the_waiver() -> None:
    failed, waived = reach(frame()), reach(frame(), [WAIVER])
    assert not failed["passed"]
    assert waived["passed"]
    assert reach(frame(0))["passed"]
    result = waived["results"][0]
    assert result["waived"]
    assert not result["success"]
    assert result["waiver"]["until"] == "2030-01-01"
    assert 'Waived until 2030-01-01: <span translate="no">known &lt;b&gt;' in _page.page(waived)
    assert "waived" in _verdict.table(waived, Path("here"))
    assert not reach(frame(0), [WAIVER])["results"][0]["waived"]


def test_waiver_of_another_column_waives_nothing() -> None:
    assert not reach(frame(), [WAIVER.model_copy(update={"column": "other"})])["passed"]


def test_waivers_for_refuses_a_misspelt_column_and_names_the_choices() -> None:
    with pytest.raises(UserError, match=r"waivers\[0\].*'bda'.*on bad"):
        _verdict.waivers_for("raw", [WAIVER.model_copy(update={"column": "bda"})], EXPECTATIONS)
    assert _verdict.waivers_for("tokens", [WAIVER], EXPECTATIONS) == []


def test_table_shows_expectation_count_records_and_params_key() -> None:
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


def test_page_loads_nothing_and_escapes_hostile_text() -> None:
    made = frame(2, HOSTILE)
    made.rows[0]["kind"] = HOSTILE
    page = _page.page(reach(made, [WAIVER.model_copy(update={"reason": HOSTILE})]))
    loads = _Loads()
    loads.feed(page)
    assert loads.found == []
    assert not re.search(r"@import|url\(", page)
    assert "viewport" in page
    assert "&lt;script" in page


def test_frame_refuses_a_missing_number_unless_nullable() -> None:
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


def test_tickets_hold_only_the_hash_and_are_withdrawn_per_gate(tmp_path: Path) -> None:
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


def test_library_import_leaves_deferred_modules_usable() -> None:
    _expectations.library()
    import altair
    import scipy.stats
    import sqlalchemy

    assert altair.Chart
    assert scipy.stats.norm
    assert sqlalchemy.Column


def test_table_tells_measured_value_bound_and_kind() -> None:
    lines = [line.strip() for line in _verdict.table(reach(frame(9)), Path("here")).splitlines()]
    assert lines[0] == "gate raw: failed, 1 of 2 rules"
    assert "documents: bad is 9; allowed: at most 0" in lines
    assert "warning: expected: little is other" in lines
    assert "labelled: other is 2; allowed: at most 1" in lines
    assert "and 4 more on the page, of 9" in lines
    assert not any(line.startswith("labelled: bad") for line in lines), "that row passed"


def test_table_shows_no_control_characters_of_records() -> None:
    made = frame(1, "x")
    made.examples[0, "bad"] = [Example("id\x1b[31m", "a\nb\u202e.csv:1", "x")]
    text = _verdict.table(reach(made), Path("here"))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "a\\nb\\u202e.csv:1 (id\\x1b[31m)" in text


def test_sections_have_failures_first() -> None:
    made = frame(0)
    made.rows[1]["bad"] = 3
    first, second = _page.sections(reach(made))
    assert (first["kind"], second["kind"]) == ("labelled", "documents")
    assert [row["state"] for row in first["rows"]] == ["failed", "warning"]
    assert [row["state"] for row in second["rows"]] == ["passed", "passed"]
    assert [row["state"] for row in _page.sections(reach(frame(0)))[0]["rows"]] == ["warning", "passed"]
    waived = _page.sections(reach(frame(2), [WAIVER]))
    states = {(section["kind"], row["finding"]): row["state"] for section in waived for row in section["rows"]}
    assert states == {
        ("documents", "bad is 2"): "waived",
        ("documents", "other is 1"): "passed",
        ("labelled", "bad is 0"): "passed",
        ("labelled", "other is 2"): "warning",
    }


def test_page_shows_failed_rows_with_bound_setting_and_turkish_records() -> None:
    page = _page.page(reach(frame(7, "çığ, öğle, İstanbul, şu ılık gün")))
    assert page.index("bad is 7") < page.index("other is 2") < page.index("bad is 0")
    for part in (
        "at most 0",
        "gates.<wbr>raw.<wbr>max_<wbr>bad",
        "1 failed, 1 warned, of 2 rules",
        "2 more",
        "file.csv:6",
    ):
        assert part.casefold() in page.casefold(), part
    assert page.count("çığ, öğle, İstanbul, şu ılık gün") == 7


def test_page_shows_an_expectation_that_cannot_be_computed_as_failed() -> None:
    made = frame(0)
    for row in made.rows:
        row["bad"] = "text"
    verdict = reach(made)
    assert not verdict["passed"]
    section, *_ = _page.sections(verdict)
    assert section["rows"][0]["state"] == "failed"
    assert "cannot be computed" in _verdict.table(verdict, Path("here"))


@pytest.mark.parametrize(
    ("condition", "bound"),
    [
        (within(1, 2.5, "key"), "from 1 to 2.5"),
        (at_least(1000, "key"), "at least 1,000"),
        (at_most(0.05, "key"), "at most 0.05"),
        (equals("b", "key"), "exactly 7"),
        (reaches("b", "key"), "at least 7"),
        (measured("key"), "a measured value"),
        (one_of(["x", "y"], "key"), "one of x, y"),
    ],
)
def test_measured_tells_the_bound_in_words(condition: Condition, bound: str) -> None:
    made = Frame((), ("a", "b"))
    made.add({"a": 3, "b": 7})
    (expectation,) = suite("gates.raw", None, [("f", "a", condition, "")])
    assert expectation.measured(made, 0) == {"finding": "a is 3", "bound": bound, "params_key": "key"}


def test_measured_fills_the_key_with_labels_alone() -> None:
    """The name of a model or metric may have braces, and is no format."""
    made = Frame(("split",), ("a",))
    made.add({"split": "train", "a": 3})
    (expectation,) = suite("gates.x", None, [("f", "a", zero("{split}.{kind}.{a}.{0}"), "", "{a} in {split}")])
    assert expectation.measured(made, 0)["params_key"] == "train.<kind>.{a}.{0}"
    assert expectation.measured(made, 0)["finding"] == "3 in train"


@pytest.mark.parametrize("break_it", ["waiver", "missing"])
def test_judge_data_leaves_no_earlier_verdict_when_there_is_no_new_one(tmp_path: Path, break_it: str) -> None:
    """A page of yesterday would be read as today's, and its tickets would admit data."""
    params = config.load(CODE / "params.yaml")
    params = params.model_copy(update={"gates": GATES, "waivers": []})
    data, reports = Raw().write(tmp_path / "data"), tmp_path / "reports"
    page = reports / "gates" / "raw" / "page.html"
    assert _run.judge_data("raw", params, data=data, reports=reports)["passed"]
    assert '<span class="good">passed</span>' in page.read_text(encoding="utf-8")
    if break_it == "waiver":
        params = params.model_copy(update={"waivers": [WAIVER.model_copy(update={"column": "none"})]})
    else:
        (data / "raw" / "ledger.json").unlink()
    with pytest.raises(UserError):
        _run.judge_data("raw", params, data=data, reports=reports)
    assert not page.parent.exists()
    assert not (data / "tickets" / "raw").exists()


def test_judge_data_replaces_a_failed_page_when_the_gate_passes(tmp_path: Path) -> None:
    params = config.load(CODE / "params.yaml").model_copy(update={"gates": GATES, "waivers": []})
    made, reports = Raw(), tmp_path / "reports"
    made.add("labelled", "write to a@mail.example about the house and the river")
    page = reports / "gates" / "raw" / "page.html"
    assert not _run.judge_data("raw", params, data=made.write(tmp_path / "data"), reports=reports)["passed"]
    assert "hold an e-mail address" in page.read_text(encoding="utf-8")
    assert not (tmp_path / "data" / "tickets" / "raw").exists()
    assert _run.judge_data("raw", params, data=Raw().write(tmp_path / "data"), reports=reports)["passed"]
    assert "1 of 25 records" not in page.read_text(encoding="utf-8")
    assert (tmp_path / "data" / "tickets" / "raw" / "labelled.json").exists()


def test_judge_model_leaves_no_earlier_verdict_when_there_are_no_metrics(tmp_path: Path) -> None:
    files.write_text(tmp_path / "gates" / "base" / "page.html", "passed")
    params = config.load(CODE / "params.yaml")
    with pytest.raises(UserError, match=r"metrics\.json"):
        _run.judge_model("base", params, reports=tmp_path)
    assert not (tmp_path / "gates" / "base").exists()
