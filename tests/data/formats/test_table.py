"""csv and tsv: a row arrives as it was written, or the file is refused, or the ledger has its line."""

import json

import pytest

from pipeline.errors import UserError
from tests.data.reading import CSV, HEADERLESS, JSONL, TSV, texts


def test_tsv_without_a_header_keeps_every_message_and_its_quotes(read):
    """The 5,574 messages would be 5,572 if quotes were read as quotes."""
    rows = read("sms", 'ham\t"hello\nspam\tWin "now"\nham\tbye"\n', columns=HEADERLESS, format=TSV)
    assert [(r["label"], r["text"]) for r in rows] == [
        ("ham", '"hello'),
        ("spam", 'Win "now"'),
        ("ham", 'bye"'),
    ]
    assert [r["origin"] for r in rows] == ["sms:1", "sms:2", "sms:3"]


@pytest.mark.parametrize("text", ["NA", "null", "None", "nan", "N/A", "1.0", "007", "TRUE", " x ", "İ ı ş ğ"])
def test_csv_keeps_words_that_other_readers_convert(read, text):
    assert texts(read("a.csv", f"text,label\n{text},ham\n")) == [text]


def test_csv_does_not_split_rows_at_a_bare_carriage_return(read):
    assert texts(read("a.tsv", "ham\tone\rtwo\r\nham\tthree\n", columns=HEADERLESS, format=TSV)) == [
        "one\rtwo",
        "three",
    ]
    assert texts(read("a.csv", "text,label\r\none\rtwo,ham\r\n")) == ["one\rtwo"]


def test_csv_does_not_split_rows_at_unicode_line_separators(read):
    assert texts(read("a.csv", "text,label\none\u2028two\x0b\x85\x1c,ham\n")) == ["one\u2028two\x0b\x85\x1c"]
    data = json.dumps({"text": "a\u2028b", "label": "x"}, ensure_ascii=False)
    assert texts(read("a.jsonl", data, format=JSONL)) == ["a\u2028b"]


def test_csv_quoted_fields_keep_line_ends_delimiters_and_quotes(read):
    rows = read("a.csv", 'text,label\n"one\r\n\r\ntwo, ""three""",ham\n"",ham\nlast,"sp""am"')
    assert [(r["text"], r["label"], r["origin"]) for r in rows] == [
        ('one\r\n\r\ntwo, "three"', "ham", "a.csv:2"),
        ("last", 'sp"am', "a.csv:6"),
    ]
    assert read.reasons() == [(5, "empty")]


def test_csv_rejects_short_and_long_rows(read):
    rows = read("a.csv", "text,label\none,ham\nshort\nlong,ham,extra\n\ntwo,spam\n")
    assert texts(rows) == ["one", "two"]
    assert read.reasons() == [(3, "short_row"), (4, "long_row")]


def test_csv_takes_blank_lines_and_empty_rows_for_no_rows(read):
    """Lost otherwise: a trailing blank line would be a rejected row, and the first gate would stop."""
    rows = read("a.csv", "\n  \nsep=;\ntext;label\none;ham\n\n;\n \ntwo;spam\n;\n", format=CSV | {"delimiter": ";"})
    assert [(row["text"], row["origin"]) for row in rows] == [("one", "a.csv:5"), ("two", "a.csv:9")]
    assert read.reasons() == []


def test_csv_refuses_rows_that_stray_quotes_would_merge(read):
    """Two messages that each open with a quote pass as one well-formed field in a default reader."""
    with pytest.raises(UserError, match=r"line 1: .* rows would be merged"):
        read("a.tsv", 'ham\t"hello\nspam\tbye"\n', columns=HEADERLESS, format=TSV | {"quoting": "standard"})


def test_csv_bounds_memory_for_an_unclosed_quote(read, monkeypatch):
    monkeypatch.setattr("pipeline.data.formats._table.MAX_RECORD_BYTES", 1000)
    with pytest.raises(UserError, match=r"line 2: .* does not close within 1,000 bytes"):
        read("a.csv", 'text,label\n"open\n' + "x,ham\n" * 10_000)
