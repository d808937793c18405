"""arrow: files and streams arrive, nested and categorical columns too, and damaged files are refused by name."""

import pyarrow as pa
import pyarrow.feather
import pytest

from pipeline.errors import UserError

ARROW = {"name": "arrow"}
TABLE = pa.table({"text": ["a b", None, "c d"], "label": pa.array(["x", "y", "x"]).dictionary_encode()})


def stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def feather(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.feather.write_feather(table, sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("write", [stream, feather])
def test_arrow_reads_rows_and_rejects_nulls(read, write) -> None:
    rows = read("a.arrow", write(TABLE), format=ARROW)
    assert [(row["text"], row["label"], row["origin"]) for row in rows] == [
        ("a b", "x", "a.arrow:1"), ("c d", "x", "a.arrow:3")
    ]  # fmt: skip
    assert read.reasons() == [(2, "null")]


@pytest.mark.parametrize("write", [stream, feather])
def test_arrow_reads_a_field_inside_another(read, write) -> None:
    nested = pa.table(
        {"row": [{"body": "a b", "tags": ["x", "y"]}, {"body": "c d", "tags": []}], "row.odd": ["e", "f"]}
    )
    rows = read("a.arrow", write(nested), format=ARROW, columns={"text": "row.body", "label": "row.tags.0"})
    assert [(row["text"], row["label"]) for row in rows] == [("a b", "x")]
    assert read.reasons() == [(2, "missing_field")]
    assert len(read("a.arrow", write(nested), "documents", format=ARROW, columns={"text": "row.odd"})) == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (stream(TABLE)[:-200], "Arrow file"), (feather(TABLE)[:-30], "Arrow file"), (b"text\na\n", "Arrow file"),
        (b"", "the file is empty"),
        (stream(TABLE.rename_columns(["text", "text"])), "occur more than once"),
        (stream(TABLE.rename_columns(["body", "label"])), r"no column 'text' \(our text\)"),
    ],
)  # fmt: skip
def test_arrow_refuses_invalid_files_by_name(read, data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read("a.arrow", data, format=ARROW)
    assert "a.arrow" in str(error.value)
