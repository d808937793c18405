"""Columns that records keep beyond their kind's: roles, further ones, and texts made of several columns.

Lost otherwise: slices, groups and times of a company's own table, or a value that the table does not hold.
"""

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from pipeline.config.recipe import Part
from pipeline.data.records import SCHEMAS, record_id, schema
from pipeline.errors import UserError
from tests.data.reading import CSV, JSON, JSONL, TXT

SEMICOLON = CSV | {"delimiter": ";"}
ROLES = {"text": "body", "label": "topic", "group": "customer", "time": "at", "consent": "basis"}
TABLE = """topic;title;body;customer;at;basis;region
kargo;Geç;Paketim gelmedi;m1;2024-05-31;contract;ege
fatura;;Faturam yanlış;m2;2024-05-31 10:30:59.9+03:00;;
iade;İade;;;2024-06-01T00:00Z;consent;marmara
"""


def test_files_keep_roles_and_further_columns_as_text(read: Any) -> None:
    columns = ROLES | {"text": "{title}\n\n{body}", "extra": ["region", "title"]}
    rows = read("a.csv", TABLE, columns=columns, format=SEMICOLON)
    assert [row["text"] for row in rows] == ["Geç\n\nPaketim gelmedi", "Faturam yanlış", "İade"]
    added = [[row[name] for name in ("group", "time", "consent", "region", "title")] for row in rows]
    assert added == [
        ["m1", "2024-05-31T00:00:00Z", "contract", "ege", "Geç"],
        ["m2", "2024-05-31T07:30:59Z", None, None, None],
        [None, "2024-06-01T00:00:00Z", "consent", "marmara", "İade"],
    ]
    assert list(rows[0])[-5:] == ["group", "time", "consent", "region", "title"]


def test_files_rename_further_columns(read: Any) -> None:
    rows = read("a.csv", TABLE, columns={"text": "body", "label": "topic", "extra": {"bölge": "region"}},
                format=SEMICOLON)  # fmt: skip
    assert [row["bölge"] for row in rows] == ["ege", None]
    assert read.reasons() == [(4, "empty")]


def test_files_without_added_columns_have_the_schema_of_their_kind(read: Any) -> None:
    (row, *_) = read("a.csv", TABLE, columns={"text": "body", "label": "topic"}, format=SEMICOLON)
    assert list(row) == [name for name in SCHEMAS["labelled"].names if name not in ("id", "source")]


def test_added_columns_do_not_change_a_records_id() -> None:
    assert record_id("labelled", "a", "b") == record_id("labelled", "a", "b", history=None)
    assert schema("labelled", ["time", "b", "a", "group"]).names[-4:] == ["group", "time", "a", "b"]
    assert schema("labelled") == SCHEMAS["labelled"]


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_files_read_added_columns_of_objects_with_numbers_dates_and_missing_keys(
    read: Any, tmp_path: Path, form: str
) -> None:
    records = [
        {"title": 7, "review": {"body": "B"}, "label": "x", "user": 12, "paid": True, "at": "2024-01-02"},
        {"title": None, "review": {"body": "C"}, "label": "x", "user": None, "paid": None, "at": "2024-01-03"},
    ]
    if form == "parquet":
        for record in records:
            record["at"] = datetime.date.fromisoformat(str(record["at"]))
    else:
        records.append({"review": {"body": "D"}, "label": "x", "at": "2024-01-04"})
    fields: dict[str, Any] = {
        "columns": {"text": "{title}: {review.body}", "group": "user", "time": "at", "extra": ["paid"]},
        "format": {"json": JSON, "jsonl": JSONL, "parquet": {"name": "parquet"}}[form],
    }
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
        rows = read.read(str(tmp_path / "a.parquet"), **fields)
    else:
        text = json.dumps(records) if form == "json" else "".join(json.dumps(record) + "\n" for record in records)
        rows = read(f"a.{form}", text, **fields)
    expected = [("7: B", "12", "true", "2024-01-02T00:00:00Z"), (": C", None, None, "2024-01-03T00:00:00Z"),
                (": D", None, None, "2024-01-04T00:00:00Z")]  # fmt: skip
    found = [(row["text"], row["group"], row["paid"], row["time"]) for row in rows]
    assert found == expected[: len(records)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "null"),
        ("31.05.2024", "not_a_time"),
        ("2024-13-01", "not_a_time"),
        ("yesterday", "not_a_time"),
        ("0001-01-01T00:00:00+03:00", "not_a_time"),
    ],
)
def test_files_reject_a_row_without_a_valid_time(read: Any, value: str, reason: str) -> None:
    """The order of time cannot be kept with a record of unknown time in it."""
    text = f"text,label,at\na,x,2024-05-31\nb,x,{value}\n"
    assert len(read("a.csv", text, columns={"time": "at"})) == 1
    assert read.reasons() == [(3, reason)]


def test_files_reject_cells_that_are_no_text(read: Any) -> None:
    rows = [("a", 1, "t"), ("b", [1], ""), ("c", 2, {"de": "x"})]
    lines = [{"text": text, "label": "x", "user": user, "title": title} for text, user, title in rows]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    read("a.jsonl", text, columns={"text": "{title} {text}", "group": "user"}, format=JSONL)
    assert read.reasons() == [(2, "not_text"), (3, "not_text")]


def test_files_reject_a_row_whose_template_has_no_value(read: Any) -> None:
    read("a.csv", "text,label,title\na,x,b\n,x,\n , x,\n", columns={"text": "{title}\n{text}"})
    assert read.reasons() == [(3, "empty"), (4, "empty")]


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.csv", "topic,title,body\nx,a,b\n", CSV),
        ("a.jsonl", '{"topic": "x", "title": "a", "body": "b"}\n', JSONL),
    ],
)
@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"text": "{titel}\n{body}"}, "no column 'titel' (our text)"),
        ({"text": "body", "extra": ["region"]}, "no column 'region' (our region)"),
        ({"text": "body", "group": "customer"}, "no column 'customer' (our group)"),
    ],
)
def test_files_refuse_a_wrong_name_with_the_columns_that_exist(
    read: Any, name: str, text: str, form: dict[str, Any], columns: dict[str, Any], fault: str
) -> None:
    with pytest.raises(UserError) as error:
        read(name, text, columns=columns | {"label": "topic"}, format=form)
    assert fault in str(error.value)
    assert "found: ['topic', 'title', 'body']" in str(error.value)


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (
            {"body": "x"},
            "columns names ['body'], which labelled do not have; one of: text, label, language, split, group",
        ),
        ({"body": "x"}, "records keep a further column of the file if it is listed: extra: [body]"),
        ({"extra": ["label"]}, "columns.extra names label, which have a meaning of their own"),
        ({"extra": {"id": "number"}}, "columns.extra names id"),
        ({"extra": ["time"]}, "columns.extra names time"),
        ({"extra": "region"}, "columns.extra is 'region'; expected a list of columns: [region]"),
        ({"extra": ["a", "a"]}, "columns.extra names a more than once"),
        (
            {"text": ["title", "body"]},
            "columns.text is ['title', 'body']; expected one column of the file, or of several",
        ),
        ({"text": "{title"}, "has a single {"),
        ({"label": "{a}/{b}"}, "columns.label is '{a}/{b}'; a template is for texts"),
        ({"group": "{a}{b}"}, "columns.group is '{a}{b}'; a template is for texts"),
    ],
)
def test_files_settings_refuse_columns_that_cannot_be_kept(columns: dict[str, Any], fault: str) -> None:
    whole = {"name": "files", "path": "inputs/a.csv", "sha256": None, "kind": "labelled", "columns": columns,
             "labels": {}, "language": "en", "split": None, "format": CSV}  # fmt: skip
    with pytest.raises(UserError) as error:
        Part.model_validate(whole).settings("data/sources", "download.sources.mine")
    assert fault in str(error.value)


def test_files_refuse_further_columns_of_plain_text(read: Any) -> None:
    with pytest.raises(UserError, match="format txt reads documents and has no columns"):
        read("a.txt", "text", "documents", columns={"extra": ["region"]}, format=TXT)


def test_conversations_keep_added_columns(read: Any) -> None:
    said = [{"role": "user", "content": "Kim?"}, {"role": "assistant", "content": "Ayşe"}]
    text = json.dumps({"log": said, "thread": 5}) + "\n"
    (row,) = read("a.jsonl", text, "instructions", columns={"messages": "log", "group": "thread"}, format=JSONL)
    assert (row["output"], row["group"]) == ("Ayşe", "5")


@pytest.mark.parametrize("unit", ["s", "ns"])
@pytest.mark.parametrize("zone", [None, "+03:00"])
def test_files_read_times_of_parquet_to_the_second(read: Any, tmp_path: Path, unit: str, zone: str | None) -> None:
    """Times compare as texts, so all must have one form."""
    moment = pa.array([1717140000], pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp(unit, zone))
    if unit == "ns":
        moment = pa.compute.add(moment, pa.scalar(123, pa.duration("ns")))
    table = pa.table({"text": ["a"], "label": ["x"], "at": moment})
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = read.read(str(tmp_path / "a.parquet"), format={"name": "parquet"}, columns={"time": "at"})
    assert row["time"] == "2024-05-31T07:20:00Z"
