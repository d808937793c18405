"""Forgotten records: lost otherwise, a record whose owner has withdrawn it comes back with the next download."""

from pathlib import Path

import pytest

from pipeline.config.params import Download
from pipeline.data import forgotten
from pipeline.data.collect import collect, describe
from pipeline.data.erasure import form_of
from pipeline.data.records import record_id
from pipeline.errors import UserError
from pipeline.files import sha256_of
from tests.data.test_collect import download, messages, read, source

__all__ = ["messages"]  # a fixture
GONE = [record_id("labelled", f"message {number}", "ham") for number in (3, 500, 999)]


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """inputs/forget.txt with three records, in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("inputs/forget.txt")
    path.parent.mkdir()
    forgotten.add(path, dict.fromkeys(GONE, "labelled"))
    return path


def test_listed_records_are_left_out_and_counted_apart(listed: Path, messages: Path) -> None:
    """Every row is still accounted for: rows in = kept + rejected + left out by weight or as forgotten."""
    plain, less = download(a=source(messages)), download(a=source(messages)).model_copy(update={"forget": str(listed)})
    collect(plain, Path("all"), progress=False)
    summary = collect(less, Path("raw"), progress=False)
    counts = {"rows_in": 1002, "kept": 997, "rejected": 2, "sampled_out": 0, "forgotten": 3}
    assert summary["a"]["rows"]["labelled"] == counts
    assert read(Path("raw"), "ledger.json")["sources"]["a"]["labelled"] == counts
    assert "forgotten: 3 labelled of a, by the list of download.forget" in describe(summary)
    kept = read(Path("raw"), "labelled.parquet")["id"].to_pylist()
    assert kept == [one for one in read(Path("all"), "labelled.parquet")["id"].to_pylist() if one not in GONE]
    assert "forgotten" not in read(Path("all"), "ledger.json")["sources"]["a"]["labelled"]


@pytest.mark.parametrize("again", ["message  3,ham", "Message 3,ham", "message 3,spam", "message 3 ,other"])
def test_a_listed_record_stays_out_with_another_label_or_other_white_space(
    listed: Path, tmp_path: Path, again: str
) -> None:
    """Lost otherwise: one space brings back the words whose owner has withdrawn them."""
    record = {"text": "message 3", "label": "ham", "language": "en"}
    forgotten.add(listed, {}, {form_of(record, "labelled"): "labelled"})
    file = tmp_path / "again.csv"
    file.write_text(f"text,label\nanother message,ham\n{again}\n", encoding="utf-8")
    less = download(a=source(file)).model_copy(update={"forget": str(listed)})
    collect(less, Path("raw"), progress=False)
    assert read(Path("raw"), "labelled.parquet")["text"].to_pylist() == ["another message"]


def test_a_list_of_other_records_changes_no_record(listed: Path, messages: Path) -> None:
    listed.write_text("0123456789abcdef\n", encoding="utf-8")
    less = download(a=source(messages)).model_copy(update={"forget": str(listed)})
    collect(download(a=source(messages)), Path("all"), progress=False)
    collect(less, Path("raw"), progress=False)
    assert sha256_of(Path("all/labelled.parquet")) == sha256_of(Path("raw/labelled.parquet"))


def test_twins_of_a_forgotten_record_are_not_made(listed: Path, messages: Path) -> None:
    twins = {
        "name": "augmented", "licence": "CC0-1.0", "consent": "synthetic", "weight": 1.0, "of": "a", "kind": "labelled",
        "augment": [{"name": "case", "share": 1.0, "forms": ["upper"]}], "seed": 1,
    }  # fmt: skip
    sources = {"forget": str(listed), "sources": {"a": source(messages), "twins": twins}}
    collect(Download.model_validate(sources), Path("raw"), progress=False)
    table = read(Path("raw"), "labelled.parquet")
    assert len(table.filter(table["source"].to_numpy(zero_copy_only=False) == "twins")) > 900
    assert not set(GONE) & {*table["id"].to_pylist(), *table["twin_of"].to_pylist()}


def test_a_list_keeps_its_lines_and_takes_each_record_once(listed: Path) -> None:
    listed.write_text(listed.read_text(encoding="utf-8") + "fedcba9876543210 # by letter of 3 May", encoding="utf-8")
    before = listed.read_text(encoding="utf-8")
    assert forgotten.add(listed, {GONE[0]: "labelled", "0" * 16: "documents"}) == ["0" * 16]
    assert listed.read_text(encoding="utf-8") == f"{before}\n{'0' * 16} # documents\n"
    assert forgotten.read(listed).ids == {*GONE, "fedcba9876543210", "0" * 16}
    assert forgotten.add(listed, {}, {"1" * 16: "documents"}) == []
    assert forgotten.add(listed, {}, {"1" * 16: "documents"}) == []
    assert listed.read_text(encoding="utf-8").count("1" * 16) == 1
    assert forgotten.read(listed).forms == {"1" * 16}


@pytest.mark.parametrize("line", ["message 3", "0123", "0123456789ABCDEF", "0123456789abcdef0"])
def test_a_line_that_is_no_id_is_named(listed: Path, line: str) -> None:
    """Lost otherwise: a misspelt id would forget nothing, and no one would see it."""
    listed.write_text(f"# head\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"inputs/forget.txt: line 3 is .*; expected a record id of 16 hexadecimal"):
        forgotten.read(listed)


def test_a_missing_list_stops_the_download(messages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    less = download(a=source(messages)).model_copy(update={"forget": "inputs/gone.txt"})
    with pytest.raises(UserError, match=r"inputs/gone.txt: no such file, params.yaml: download.forget names it"):
        collect(less, Path("raw"), progress=False)


@pytest.mark.parametrize("path", ["forget.txt", "data/forget.txt", "inputs/../forget.txt", "inputs"])
def test_a_list_outside_inputs_is_refused_by_config(path: str) -> None:
    with pytest.raises(ValueError, match="must lie below inputs/"):
        Download.model_validate({"forget": path, "sources": {}})
