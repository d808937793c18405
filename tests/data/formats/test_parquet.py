"""parquet: text arrives, everything else is rejected with its row."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError


def test_parquet_reads_rows_and_rejects_values_that_are_no_text(read, tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", None, "", "NA", "e"], "label": pa.array([0, 1, 0, 1, 2], pa.int64())})
    pq.write_table(table, path)
    rows = read.read(str(path), format={"name": "parquet"}, labels={"0": "ham", "1": "spam"})
    assert [(r["text"], r["label"], r["origin"]) for r in rows] == [
        ("a", "ham", "a.parquet:1"),
        ("NA", "spam", "a.parquet:4"),
    ]
    assert read.reasons() == [(2, "null"), (3, "empty"), (5, "not_text")]


def test_parquet_refuses_damaged_files(read, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 1000] * 10}), path)
    whole = path.read_bytes()
    for broken in (
        whole[:-20],
        b"PAR1" + b"\0" * 100,
        b"text\nhello\n",
        whole[:4] + b"\xff" * 60 + whole[64:],
    ):
        with pytest.raises(UserError, match=r"a\.parquet"):
            read("a.parquet", broken, "documents", format={"name": "parquet"})
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"text": bad}), path)
    with pytest.raises(UserError, match="rows 1 to 1: text that is not UTF-8"):
        read.read(str(path), "documents", format={"name": "parquet"})
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), path)
    with pytest.raises(UserError, match="occur more than once"):
        read.read(str(path), "documents", format={"name": "parquet"})


def test_parquet_reads_nested_and_categorical_columns_by_their_path(read, tmp_path):
    table = pa.table({
        "row": [{"body": "a b", "marks": ["x"]}, {"body": None, "marks": []}],
        "label": pa.array(["x", "y"]).dictionary_encode(),
        "day": pa.array([2**60] * 2, pa.timestamp("ms")),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    form = {"name": "parquet"}
    rows = read.read(str(tmp_path / "a.parquet"), format=form, columns={"text": "row.body"})
    assert [(row["text"], row["label"], row["origin"]) for row in rows] == [("a b", "x", "a.parquet:1")]
    assert read.reasons() == [(2, "null")]
    with pytest.raises(UserError, match=r"no column 'row\.none'"):
        read.read(str(tmp_path / "a.parquet"), format=form, columns={"text": "row.none"})
    with pytest.raises(UserError, match=r"rows 1 to 1: a value that cannot be read .*leave out its column"):
        read.read(str(tmp_path / "a.parquet"), format=form, columns={"text": "row.body", "label": "day"})
