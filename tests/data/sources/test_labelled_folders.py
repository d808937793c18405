"""Text files in one folder per label: the folder's name arrives as the label, in files' order."""

from pathlib import Path

import pytest

from pipeline.data.ledger import RowLog
from pipeline.data.sources import labelled_folders
from pipeline.errors import UserError
from tests.data.reading import CSV, TXT


def read(pattern: str, **fields: object) -> tuple[list[dict], list]:
    settings = labelled_folders.Settings.model_validate({
        "path": pattern, "sha256": None, "kind": "labelled", "columns": {}, "labels": {}, "language": "en",
        "split": None, "format": TXT,
    } | fields)  # fmt: skip
    rejected: list = []
    log = RowLog("mine", rejected.extend)
    rows = [row for _, made in labelled_folders.read(settings, "mine", log) for row in made.to_pylist()]
    log.flush()
    return rows, rejected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train/pos/1.txt", "train/neg/2.txt", "test/pos/3.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"metin {name}\n\nikinci paragraf", encoding="utf-8")
    return tmp_path


def test_labelled_folders_takes_the_name_of_a_file_s_folder_as_its_label(folder: Path) -> None:
    rows, _ = read(f"{folder}/**/*.txt")
    assert [(row["label"], row["origin"]) for row in rows] == [
        ("pos", "test/pos/3.txt:1"), ("neg", "train/neg/2.txt:1"), ("pos", "train/pos/1.txt:1")
    ]  # fmt: skip
    assert rows[0]["text"] == "metin test/pos/3.txt\n\nikinci paragraf"


def test_labelled_folders_maps_and_rejects_labels_as_params_say(folder: Path) -> None:
    rows, rejected = read(f"{folder}/train/**/*.txt", labels={"pos": "olumlu", "neg": "olumsuz"})
    assert [row["label"] for row in rows] == ["olumsuz", "olumlu"]
    with pytest.raises(UserError, match="unknown_label"):
        read(f"{folder}/train/neg/*.txt", labels={"pos": "olumlu"})
    assert rejected == []


def test_labelled_folders_reads_the_texts_alone_as_documents(folder: Path) -> None:
    rows, _ = read(f"{folder}/**/*.txt", kind="documents")
    assert len(rows) == 3
    assert "label" not in rows[0]


def test_labelled_folders_refuses_what_it_cannot_read(folder: Path) -> None:
    with pytest.raises(UserError, match="no file matches"):
        read(f"{folder}/*.md")
    (folder / "train/pos/empty.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.txt: the file is empty"):
        read(f"{folder}/**/*.txt")
    for fields in ({"format": CSV}, {"columns": {"text": "x"}}, {"kind": "instructions"}):
        with pytest.raises(ValueError, match=r"columns|labelled"):
            read(f"{folder}/**/*.txt", **fields)


def test_labelled_folders_provenance_changes_with_a_file(folder: Path) -> None:
    settings = labelled_folders.Settings.model_validate({
        "path": f"{folder}/**/*.txt", "sha256": None, "kind": "labelled", "columns": {}, "labels": {}, "language": "en",
        "split": None, "format": TXT,
    })  # fmt: skip
    before = labelled_folders.provenance(settings)
    (folder / "train/pos/1.txt").write_text("başka", encoding="utf-8")
    after = labelled_folders.provenance(settings)
    assert before["address"] == after["address"]
    assert before["sha256"] != after["sha256"]
