"""If these fail, a text is made of other columns than params.yaml says, or an empty cell leaves a trace in it."""

import re

import pytest

from pipeline.data.formats._template import Template, is_template


@pytest.mark.parametrize(
    ("template", "cells", "text"),
    [
        ("{title}\n\n{body}", {"title": "A", "body": "B"}, "A\n\nB"),
        ("{title}\n\n{body}", {"title": "", "body": "B"}, "B"),
        ("{title}\n\n{body}", {"title": "A", "body": " \n"}, "A"),
        ("{title}\n\n{body}", {"title": "", "body": ""}, ""),
        ("{a}\n\n{b}\n\n{c}", {"a": "A", "b": "", "c": "C"}, "A\n\nC"),
        ("Subject: {title}\n{body}", {"title": "", "body": "B"}, "B"),
        ("Subject: {title}\nBody:\n{body}", {"title": "", "body": ""}, ""),
        ("{a} ({b})", {"a": "A", "b": ""}, "A ()"),
        ("{a}{b}", {"a": "A", "b": "B"}, "AB"),
        ("{{{a}}} {a}", {"a": "A"}, "{A} A"),
        ("{ürün grubu}: {review.text}", {"ürün grubu": "x", "review.text": "y"}, "x: y"),
        ("{a}", {"a": "{b}"}, "{b}"),
        ("{a}\n{b}", {"a": "line\n\nline", "b": "B"}, "line\n\nline\nB"),
    ],
)
def test_template_fills_columns_and_leaves_out_lines_without_a_value(
    template: str, cells: dict[str, str], text: str
) -> None:
    assert is_template(template)
    assert Template(template).filled(cells) == text


def test_template_lists_each_column_once_in_order() -> None:
    assert Template("{b}\n{a} {b}").columns == ("b", "a")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{title", "has a single {; expected a column in braces, as {title}, or {{"),
        ("title}", "has a single }"),
        ("{a} {}", "has a single {"),
        ("{{title}}", "names no column"),
    ],
)
def test_template_refuses_braces_that_name_no_column(template: str, fault: str) -> None:
    assert is_template(template)
    with pytest.raises(ValueError, match=re.escape(fault)):
        _ = Template(template).columns


def test_is_template_is_false_for_a_column_name() -> None:
    assert not is_template("review.text")
