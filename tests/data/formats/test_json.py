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
