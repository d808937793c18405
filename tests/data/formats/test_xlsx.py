"""xlsx: cells arrive with their row numbers, numbers stay numbers, and what is no spreadsheet is refused."""

import pytest

from pipeline.errors import UserError
from tests.studies.file_writers import xlsx

SHEET = {"name": "xlsx", "sheet": None, "header": True}
BODY = [["label", "text"], [1, "iyi ışık"], ["", ""], [0, "kötü"], [1, 12], [2, "başka"]]


def test_xlsx_reads_rows_with_their_numbers(read) -> None:
    rows = read("a.xlsx", xlsx({"S": BODY}), format=SHEET, labels={"0": "neg", "1": "pos"})
    assert [(row["text"], row["label"], row["origin"]) for row in rows] == [
        ("iyi ışık", "pos", "a.xlsx:2"), ("kötü", "neg", "a.xlsx:4")
    ]  # fmt: skip
    assert read.reasons() == [(5, "not_text"), (6, "not_text")]  # a number is no text, and label 2 is not named


def test_xlsx_reads_the_named_sheet_and_columns_without_a_header(read) -> None:
    data = xlsx({"Notlar": [["x"]], "Veri": [["iyi", "a"], ["kötü", "b"]]})
    form = SHEET | {"sheet": "Veri", "header": False}
    assert [row["label"] for row in read("a.xlsx", data, format=form, columns={"text": "0", "label": "1"})] == [
        "a",
        "b",
    ]
    with pytest.raises(UserError, match=r"no sheet 'Vari'; one of: Notlar, Veri; correct format\.sheet"):
        read("a.xlsx", data, format=form | {"sheet": "Vari"})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"text,label\na,b\n", "cannot be read as a spreadsheet"),
        (xlsx({"S": BODY})[:-60], "cannot be read as a spreadsheet"),
        (xlsx({"S": []}), "the sheet holds no row"),
        (xlsx({"S": [["text", "text"], ["a", "b"]]}), "occur more than once"),
        (xlsx({"S": [["body", "label"], ["a", "b"]]}), r"no column 'text' \(our text\); found: \['body', 'label'\]"),
        (b"", "the file is empty"),
    ],
)
def test_xlsx_refuses_invalid_files_by_name(read, data: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read("a.xlsx", data, format=SHEET)
    assert "a.xlsx" in str(error.value)
