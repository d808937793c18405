"""Plain text: documents begin and end where params say, and cutting them loses nothing."""

import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.data.formats import _text
from pipeline.errors import UserError
from tests.data.reading import TXT, texts


def test_txt_keeps_every_byte_of_an_uncut_file(read):
    text = "\n\nBir\r\n\n  iki \rüç\n\n"
    assert texts(read("a.txt", text, "documents", format=TXT)) == [text]


def test_txt_splits_documents_by_line_paragraph_and_separator(read):
    by = lambda how, separator=None: TXT | {"documents": how, "separator": separator}  # noqa: E731 - a shorthand of this test alone
    data = "one\ntwo\n\n \nthree\n<|endoftext|>\nfour\n<|endoftext|>\n"
    assert texts(read("a.txt", data, "documents", format=by("line")))[:3] == ["one", "two", "three"]
    rows = read("a.txt", data, "documents", format=by("paragraph"))
    assert [(r["text"], r["origin"]) for r in rows] == [
        ("one\ntwo", "a.txt:1"),
        ("three\n<|endoftext|>\nfour\n<|endoftext|>", "a.txt:5"),
    ]
    rows = read("a.txt", data, "documents", format=by("separator", "<|endoftext|>"))
    assert [(r["text"], r["origin"]) for r in rows] == [
        ("one\ntwo\n\n \nthree", "a.txt:1"),
        ("four", "a.txt:7"),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab. \n\té́ı", min_size=1), limit=st.integers(3, 30))
@example(text="aa\n ", limit=4)
def test_txt_cuts_lose_only_space_and_keep_the_limit(read, text, limit):
    """Text lost at a cut would be text the model never reads, without a word in the ledger."""
    text = "x" + text
    rows = read("a.txt", text, "documents", format=TXT | {"max_characters": limit})
    assert all(len(row["text"]) <= limit for row in rows)
    assert "".join("".join(texts(rows)).split()) == "".join(text.split())
    lines = text.split("\n")
    for row in rows:
        start = int(row["origin"].rsplit(":", 1)[1])
        assert row["text"].split("\n")[0] in lines[start - 1]


def test_txt_cuts_between_paragraphs_and_sentences(read):
    text = "One one one.\n\nTwo two two.\n\nThree is long. It has two sentences."
    rows = read("a.txt", text, "documents", format=TXT | {"max_characters": 30})
    assert texts(rows) == ["One one one.\n\nTwo two two.", "Three is long. ", "It has two sentences."]
    assert [row["origin"] for row in rows] == ["a.txt:1", "a.txt:5", "a.txt:5"]


def test_txt_reads_documents_only(read):
    with pytest.raises(UserError, match="format txt reads documents"):
        read("a.txt", "hi", "labelled", format=TXT)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet="ab. \n\té", min_size=1, max_size=300),
    limit=st.integers(3, 40),
    chunk=st.integers(1, 50),
    documents=st.sampled_from(["file", "line", "paragraph"]),
)
def test_txt_cuts_lines_alike_in_whole_and_in_parts(read, text, limit, chunk, documents):
    """Lines of any length come in parts; where a part ends must not be seen in the records."""
    form = TXT | {"max_characters": limit, "documents": documents}
    rows = read("a.txt", "x" + text, "documents", format=form)
    whole, _text.CHUNK = _text.CHUNK, chunk
    try:
        assert read("a.txt", "x" + text, "documents", format=form) == rows
    finally:
        _text.CHUNK = whole


def test_txt_reads_a_line_of_any_length_where_it_is_cut(read, tmp_path):
    """Lost otherwise: a book on one line."""
    path = tmp_path / "a.txt"
    with path.open("w", encoding="utf-8") as out:
        out.write("baş\n\n")
        for _ in range(40):
            out.write("söz " * 250_000)
        out.write("\n\nson\n")
    tracemalloc.start()
    rows = read.read(str(path), "documents", format=TXT | {"documents": "paragraph", "max_characters": 100_000})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.reasons() == []
    assert sum(row["text"].count("söz") for row in rows) == 10_000_000
    assert (rows[0]["origin"], rows[-1]["origin"], rows[-1]["text"]) == ("a.txt:1", "a.txt:5", "son")
    assert peak < 250 << 20


def test_txt_makes_the_records_of_a_file_one_group(read, tmp_path):
    """Lost otherwise: pieces of one document in training and test."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("one\n\ntwo\n")
    form = TXT | {"documents": "paragraph"}
    rows = read.read(f"{tmp_path}/*.txt", "documents", format=form, columns={"group": "file"})
    assert [(row["text"], row["group"]) for row in rows] == [
        ("one", "a.txt"), ("two", "a.txt"), ("one", "b.txt"), ("two", "b.txt")
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"found kind documents, columns \{'group': 'name'\}; expected .*group: file"):
        read("a.txt", "text", "documents", format=form, columns={"group": "name"})
