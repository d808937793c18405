"""json and jsonl: any text arrives; numbers, nulls and repeated keys are never made into text in silence."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.formats import _text
from pipeline.errors import UserError
from tests.data.reading import JSON, JSONL, texts


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(str.strip),
        min_size=1,
    ),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 9),
)
def test_json_and_jsonl_read_any_text_in_any_chunks(read, values, indent, chunk):
    whole, _text.CHUNK = _text.CHUNK, chunk
    try:
        objects = [{"text": value, "n": k} for k, value in enumerate(values)]
        data = json.dumps(objects, indent=indent, ensure_ascii=False)
        assert texts(read("a.json", data, "documents", format=JSON)) == values
        data = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
        assert texts(read("a.jsonl", data, "documents", format=JSONL)) == values
    finally:
        _text.CHUNK = whole


def test_json_rejects_values_that_are_no_text(read):
    bad = [
        "1",
        "1.0",
        "true",
        "null",
        '["a"]',
        "{}",
        '""',
        '"  "',
        '"a\\u0000b"',
        '"\\ud800"',
        "9" * 5000,
        "NaN",
    ]
    data = '{"text": "ok"}\n' + "".join(f'{{"text": {value}}}\n' for value in bad)
    data += '{"other": "x"}\n[1]\n{"text": "cut off\n\n' + "[" * 100_000 + "\n"
    assert texts(read("a.jsonl", data, "documents", format=JSONL)) == ["ok"]
    reasons = [reason for _, reason in read.reasons()]
    assert reasons == ["not_text"] * 3 + ["null"] + ["not_text"] * 2 + ["empty"] * 2 + [
        "nul",
        "surrogate",
    ] + ["not_text"] * 2 + ["missing_field", "not_an_object", "invalid_json", "invalid_json"]
    assert [line for line, _ in read.reasons()] == [*range(2, len(reasons) + 1), len(reasons) + 2]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"text": "a"}\n{"text": "b"}', "line 1: found one object (or JSON lines: then set format jsonl)"),
        ('[{"text": "a"}\n{"text": "b"}]', "line 2: found '{' after an element"),
        ('[{"text": "a"},\n {"text": "b"', "line 2: broken JSON"),
        ('[{"text": "a"},\n]', "line 2: broken JSON"),
        ('[{"text": "a"}] x', "found 'x' after the array's end"),
        ('[{"text": "a"}', "found 'the end of the file' after an element"),
        ('[{"text": "a", \n"text": "b"}]', "the key 'text' occurs twice"),
        ("[]", "holds no record"),
        ('"text"', "expected an array of objects"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"body": "a"}]', "no column 'text' (our text); found: ['body']"),
    ],
)
def test_json_refuses_invalid_files_with_the_line(read, data, expected):
    with pytest.raises(UserError) as error:
        read("a.json", data, "documents", format=JSON)
    assert expected in str(error.value)
    assert "a.json" in str(error.value)


def test_jsonl_refuses_a_repeated_key(read):
    with pytest.raises(UserError, match="line 2: the key 'text' occurs twice"):
        read("a.jsonl", '{"text": "a"}\n{"text": "b", "text": "c"}\n', "documents", format=JSONL)


def test_json_reads_the_array_under_a_key(read):
    data = '{"v": [1, {"x": []}], "sonuç": {"n": 2, "rows": [\n{"text": "a"},\n{"text": "ışık"}\n]}, "z": {"rows": []}}'
    rows = read("a.json", data, "documents", format=JSON | {"records": "sonuç.rows"})
    assert [(row["text"], row["origin"]) for row in rows] == [("a", "a.json:2"), ("ışık", "a.json:3")]


@pytest.mark.parametrize(
    ("data", "key", "words"),
    [
        ('{"data": [{"text": "a"}]}', "rows", "no key 'rows'; found: \\['data'\\]; correct format.records"),
        ('{"data": {"text": "a"}}', "data", "under 'data' found '{'; expected an array"),
        ('{"data": [{"text": "a"}]}', "data.rows", "under 'data' found '\\['; expected an object"),
        ('[{"text": "a"}]', "data", "expected an object: "),
        ('{"data": [{"text": "a"}], "data": []}', "data", "line 1: the key 'data' occurs twice"),
        ('{"data": [{"text": "a"}]', "data", "found 'the end of the file' after a value"),
        ('{"data": [{"text": "a"}]} x', "data", "after the array's end"),
        ("{data: []}", "data", "expected a key in quotes"),
        ('{"data" []}', "data", "after a key; expected :"),
    ],
)
def test_json_refuses_an_object_without_the_array(read, data, key, words):
    with pytest.raises(UserError, match=words):
        read("a.json", data, "documents", format=JSON | {"records": key})


@pytest.mark.parametrize("encoding", ["windows-1254", "utf-16", "utf-8-sig"])
def test_json_and_jsonl_read_named_encodings(read, encoding):
    for name, form, text in (("a.json", JSON, '[{"text": "ışık"}]'), ("a.jsonl", JSONL, '{"text": "ışık"}\n')):
        assert texts(read(name, text.encode(encoding), "documents", format=form | {"encoding": encoding})) == ["ışık"]


def test_jsonl_skips_blank_lines_and_counts_them(read):
    """Lost otherwise: a trailing blank line would be a rejected row, or the next row's number wrong."""
    rows = read("a.jsonl", '\n{"text": "a"}\n \n\n{"text": 1}\n{"text": "b"}\n\n', "documents", format=JSONL)
    assert [row["origin"] for row in rows] == ["a.jsonl:2", "a.jsonl:6"]
    assert read.reasons() == [(5, "not_text")]


def test_jsonl_names_the_character_of_broken_json(read):
    read("a.jsonl", '{"text": "a"}\n{"text": b}\n', "documents", format=JSONL)
    assert [(row.line, row.detail) for row in read.rejections] == [(2, "Expecting value at character 10")]


def test_jsonl_accepts_rows_without_an_optional_field_wherever_they_stand(read):
    """Lost otherwise: half of the instructions, as `input` is in some records only."""
    data = '{"q": "a", "a": "b"}\n{"q": "c", "k": null, "a": "d"}\n{"q": "e", "k": "f", "a": "g"}\n{"q": "h"}\n'
    columns = {"instruction": "q", "input": "k", "output": "a"}
    rows = read("a.jsonl", data, "instructions", format=JSONL, columns=columns)
    assert [row["input"] for row in rows] == ["", "", "f"]
    assert read.reasons() == [(4, "missing_field")]
    with pytest.raises(UserError, match=r"no column 'note' \(our input\); found: \['q', 'a', 'k'\]"):
        read("a.jsonl", data, "instructions", format=JSONL, columns=columns | {"input": "note"})


def test_jsonl_refuses_a_field_that_no_object_has_within_the_first_thousand(read):
    with pytest.raises(UserError, match=r"no column 'text' \(our text\); found: \['body'\]"):
        read("a.jsonl", '{"body": "x"}\n' * 5000, "documents", format=JSONL)


def test_jsonl_reads_a_path_into_nested_objects_and_lists(read):
    data = '{"r": {"t": ["a", "b"]}, "r.t.0": "whole"}\n{"r": {"t": ["c", "d"]}}\n{"r": {"t": []}}\n{"r": "x"}\n'
    assert texts(read("a.jsonl", data, "documents", format=JSONL, columns={"text": "r.t.0"})) == ["whole", "c"]
    assert read.reasons() == [(3, "missing_field"), (4, "missing_field")]
