"""Items of benchmarks: a changed or shortened file would be another benchmark with the same name."""

import hashlib
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import files
from pipeline.data.benchmarks import items
from pipeline.errors import UserError

ROWS = [{"a": "ışık", "n": 1}, {"a": "two; three", "n": 2}]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inputs").mkdir()


def pin(path: str) -> str:
    return files.sha256_of(Path(path))


def jsonl(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_items_reads_the_same_rows_of_every_format() -> None:
    Path("inputs/x.jsonl").write_text(jsonl(ROWS))
    Path("inputs/x.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), "inputs/x.parquet")
    Path("inputs/comma.csv").write_text("a,n\nışık,1\ntwo; three,2\n")
    Path("inputs/semicolon.csv").write_text('\ufeffa;n\nışık;1\n"two; three";2\n')
    for name in ("x.jsonl", "x.json", "x.parquet", "comma.csv", "semicolon.csv"):
        path = f"inputs/{name}"
        read = items(path, pin(path))
        assert [item.text("a") for item in read] == ["ışık", "two; three"], name
        assert [int(item.value("n")) for item in read] == [1, 2]
        assert read[0].place.startswith(f"{path}: line ")


def test_items_reads_archives_and_folders_in_the_order_of_names_without_added_files() -> None:
    for make in (_archive, _folder_of_files):
        path = make({"data/b.jsonl": jsonl(ROWS[1:]), "data/a.jsonl": jsonl(ROWS[:1]), "__MACOSX/data/._a.jsonl": "x"})
        read = items(path, pin(path))
        assert [(item.file, item.text("a")) for item in read] == [("a", "ışık"), ("b", "two; three")]


def _archive(content: dict[str, str]) -> str:
    with zipfile.ZipFile("inputs/x.zip", "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return "inputs/x.zip"


def _folder_of_files(content: dict[str, str]) -> str:
    for name, text in content.items():
        files.write_text(Path("inputs/folder") / name, text)
    return "inputs/folder"


def test_items_refuses_a_changed_file_and_prints_its_hash() -> None:
    Path("inputs/x.jsonl").write_text(jsonl(ROWS))
    pinned = pin("inputs/x.jsonl")
    Path("inputs/x.jsonl").write_text(jsonl(ROWS[:1]))
    found = hashlib.sha256(jsonl(ROWS[:1]).encode()).hexdigest()
    with pytest.raises(UserError, match=f"its SHA-256 is {found}, and params.yaml pins {pinned}; restore"):
        items("inputs/x.jsonl", pinned)


@pytest.mark.parametrize("path", ["data/x.jsonl", "/tmp/x.jsonl", "inputs/../x.jsonl"])
def test_items_refuses_a_path_outside_inputs(path: str) -> None:
    with pytest.raises(UserError, match="expected a path below inputs/"):
        items(path, "0" * 64)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"a": "b"}\n{"a": \n', r"inputs/x.jsonl: line 2: invalid_json"),
        ("x.csv", "a,b\n1,2\n3\n", r"inputs/x.csv: line 3: "),
        ("x.txt", "words", "holds no file that ends in"),
        ("x.zip", "no archive", "no zip archive"),
    ],
)
def test_items_refuses_rows_that_cannot_be_read(name: str, text: str, message: str) -> None:
    """Lost otherwise: a score over fewer items, under the benchmark's name."""
    path = f"inputs/{name}"
    Path(path).write_text(text)
    with pytest.raises(UserError, match=message):
        items(path, pin(path))


def test_items_names_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"inputs/x.jsonl: no such file; copy the benchmark there"):
        items("inputs/x.jsonl", "0" * 64)


def test_item_names_the_row_whose_field_is_missing_or_of_another_type() -> None:
    Path("inputs/x.jsonl").write_text(jsonl(ROWS))
    item = items("inputs/x.jsonl", pin("inputs/x.jsonl"))[1]
    assert item.text("missing", "a") == "two; three"
    with pytest.raises(UserError, match=r"inputs/x.jsonl: line 2: no field b or c; found: a, n"):
        item.value("b", "c")
    with pytest.raises(UserError, match=r"line 2: n is 2; expected a text"):
        item.text("n")
    with pytest.raises(UserError, match=r"line 2: a is 'two; three'; expected a list of texts"):
        item.texts("a")
