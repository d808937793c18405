"""Bytes to text: every byte arrives as it was written, or the user is told which one did not."""

import gzip
import tracemalloc

import pytest

from pipeline.config import plugins
from pipeline.errors import UserError
from tests.data.reading import CSV, JSON, JSONL, TSV, TXT, texts


def test_text_removes_a_byte_order_mark_at_the_start(read):
    assert texts(read("a.csv", b"\xef\xbb\xbftext,label\nhi,ham\n")) == ["hi"]


def test_text_keeps_a_byte_order_mark_inside(read):
    assert texts(read("a.csv", "label,text\nham,\ufeffhi\n")) == ["\ufeffhi"]


def test_text_reads_named_encodings(read):
    for encoding in ("windows-1254", "iso-8859-9", "utf-16", "utf-8-sig", "utf-8"):
        rows = read("a.csv", "text,label\nışığın İğdesi,ham\n".encode(encoding), format=CSV | {"encoding": encoding})
        assert texts(rows) == ["ışığın İğdesi"]


@pytest.mark.parametrize("name", ["txt", "csv", "tsv", "json", "jsonl"])
def test_text_formats_read_gzip(read, name):
    content = {
        "txt": "hi",
        "csv": "text\nhi\n",
        "tsv": "hi\n",
        "json": '[{"text": "hi"}]',
        "jsonl": '{"text": "hi"}',
    }
    form = {"txt": TXT, "csv": CSV, "tsv": TSV, "json": JSON, "jsonl": JSONL}[name]
    rows = read(
        f"a.{name}.gz",
        gzip.compress(content[name].encode()),
        "documents",
        format=form,
        columns={"text": "0"} if name == "tsv" else {},
    )
    assert texts(rows) == ["hi"]


def test_formats_are_all_tested_here():
    """A format without a test here would be read on trust."""
    assert plugins.choices("data/formats") == ["arrow", "csv", "json", "jsonl", "parquet", "tsv", "txt", "xlsx"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"text,label\n", "holds no record"),
        (b"text,label\nh\xff,ham\n", "a.csv: line 2: byte 12 is 0xff: not UTF-8"),
        (b"text,label\n" + (b"o" * 95 + b",ham\n") * 11_000 + b"\xfe", "line 11002: byte 1,100,011 is 0xfe"),
        (b"text,label\nok,ham\xc4", "byte 17 is 0xc4"),
        ("text,label\nhi,ham\n".encode("utf-16"), "looks like UTF-16"),
        ("text,label\nhi,ham\n".encode("utf-16-le"), "looks like UTF-16"),
        (b"text,label\nh\0i,ham\n", "so it is binary"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
        (b"PK\x03\x04rest", "is a zip"),
        # the hour would stand in the test's name, and workers that collect in different seconds disagree
        (gzip.compress(b"text,label\n", mtime=0), "is gzip without .gz"),
        (b"text,text,label\na,b,ham\n", "columns ['text'] occur more than once"),
        (b"Text,label\nhi,ham\n", "no column 'text' (our text); found: ['Text', 'label']"),
        (b"text;label\nhi;ham\n", "is the delimiter ';' rather than ','?"),
        (b"text,label\rhi,ham\r", "bare CR"),
        (
            b'text,label\nok,ham\n"open,ham\nx,ham\n',
            "line 3: a field opens with a quote, but the quote does not close",
        ),
        (
            b'text,label\n"a" b,ham\n',
            "line 2: a field opens with a quote, but the quote closes at line 2 and is",
        ),
        (b"text,label\n,ham\n,spam\n", "every row was rejected, the first at line 2: empty"),
    ],
)
def test_text_refuses_undecodable_files_with_name_and_place(read, data, expected):
    with pytest.raises(UserError) as error:
        read("a.csv", data)
    assert expected in str(error.value)
    assert "a.csv" in str(error.value)


def test_text_refuses_damaged_gzip(read):
    whole = gzip.compress(b"text,label\n" + b"hi,ham\n" * 1000)
    for broken in (whole[:-10], whole[:20], b"text,label\nhi,ham\n", whole[:-8] + b"\0" * 8, whole + b"rest"):
        with pytest.raises(UserError, match="not a whole gzip file"):
            read("a.csv.gz", broken)


@pytest.mark.parametrize(("name", "form"), [("a.txt", TXT), ("a.jsonl", JSONL), ("a.csv", CSV)])
def test_text_rejects_a_line_of_50_mb_in_bounded_memory(read, tmp_path, name, form):
    """One endless line must not take the machine down; the records around it are kept where there are any."""
    path = tmp_path / name
    rows = {"a.txt": [], "a.jsonl": [b'{"text": "ok"}\n'] * 2, "a.csv": [b"text\nok\n", b"ok\n"]}[name]
    with path.open("wb") as out:
        out.write(b"".join(rows[:1]))
        for _ in range(50):
            out.write(b"x" * (1 << 20))
        out.write(b"\n" + b"".join(rows[1:]))
    tracemalloc.start()
    if rows:
        assert texts(read.read(str(path), "documents", format=form)) == ["ok", "ok"]
        assert [reason for _, reason in read.reasons()] == ["too_large"]
    else:
        with pytest.raises(UserError, match="too_large"):
            read.read(str(path), "documents", format=form)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150 << 20
