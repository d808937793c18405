"""If these fail, a record is in two splits or in none, a training text is not the one that was admitted, or
two runs on equal input give other bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import config
from pipeline.config.params import Params
from pipeline.config.recipe import KINDS
from pipeline.data import shard_writer, tables
from pipeline.data.records import SCHEMAS, SPLITS
from pipeline.data.samples import REMOVED, describe, sample
from pipeline.data.split import split_of
from pipeline.errors import UserError
from pipeline.files import read_json, sha256_of
from tests.folders import write_raw, write_tokens

LONG = " ".join(f"kelime{number}" for number in range(80))


def params(**changes: Any) -> Params:
    loaded = config.load()
    split = loaded.split.model_copy(update={"validation": 0.2, "test": 0.2})
    return loaded.model_copy(update={"split": split, "sample": loaded.sample.model_copy(update=changes)})


def records() -> dict[str, list[dict[str, Any]]]:
    documents = [{"text": f"Belge {n}. " + "Çok güzel. " * (n % 5), "bits": float(n)} for n in range(100)]
    documents += [{"text": "BELGE 7. " + "çok  güzel. " * 2}, {"text": LONG, "split": "train"}]
    documents += [{"text": LONG.replace("kelime40", "başka"), "split": "test"}]
    labelled = [{"text": f"Mesaj {n}", "label": "spam" if n % 3 else "ham"} for n in range(60)]
    labelled += [{"text": "mesaj 5", "label": "ham"}]
    instructions = [{"instruction": f"{n} kaç?", "input": "", "output": str(n)} for n in range(40)]
    instructions += [{"instruction": "3 KAÇ?", "input": "", "output": "üç"}]
    preferences = [
        {"instruction": "Söyle", "input": "", "chosen": "a", "rejected": rejected, "split": "train"}
        for rejected in "bcb"
    ]
    return {
        "documents": documents,
        "labelled": labelled,
        "instructions": instructions,
        "preferences": preferences,
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("sample")
    raw = write_raw(folder / "raw", **records())
    tokens = write_tokens(raw, folder / "tokens")
    sample(params(), raw, tokens, folder / "samples", progress=False)
    return raw, tokens, folder / "samples"


def test_sample_keeps_each_row_once_or_removes_it_with_a_reason(folders: tuple[Path, Path, Path]) -> None:
    raw, _, out = folders
    ledger = read_json(out / "ledger.json")
    removed = pq.read_table(out / "removed.parquet")
    assert removed.schema.equals(REMOVED)
    for kind in KINDS:
        rows = pq.read_table(raw / f"{kind}.parquet").to_pylist()
        kept = {split: pq.read_table(out / kind / f"{split}.parquet").to_pylist() for split in SPLITS}
        gone = [row for row in removed.to_pylist() if row["kind"] == kind]
        account = ledger[kind]
        assert account["rows_in"] == len(rows) == sum(account["kept"].values()) + sum(account["removed"].values())
        assert account["kept"] == {split: len(found) for split, found in kept.items()}
        assert sum(account["removed"].values()) == len(gone)
        ids = [row["id"] for found in kept.values() for row in found]
        assert sorted([*ids, *(row["id"] for row in gone)]) == sorted(row["id"] for row in rows)
        assert {row["of"] for row in gone} <= set(ids)
        for split, found in kept.items():
            order = [row["id"] for row in rows]
            assert [order.index(row["id"]) for row in found] == sorted(order.index(row["id"]) for row in found)
            assert all(row["split"] == split for row in found)


def test_sample_removes_duplicates_with_the_right_reason(folders: tuple[Path, Path, Path]) -> None:
    gone = {row["text"]: row for row in pq.read_table(folders[2] / "removed.parquet").to_pylist()}
    assert gone[LONG[:200]]["reason"] == "contamination"
    assert gone[LONG[:200]]["split"] == "train"
    assert gone[LONG[:200]]["similarity"] == pytest.approx(79 / 89)
    assert gone[LONG[:200]]["origin"] == "test:102"
    assert sum(row["kind"] == "documents" for row in gone.values()) == 2
    assert {row["text"].lower() for row in gone.values() if row["kind"] == "labelled"} == {"mesaj 5"}
    assert {row["text"].lower() for row in gone.values() if row["kind"] == "instructions"} == {"3 kaç?"}
    (preference,) = [row for row in gone.values() if row["kind"] == "preferences"]
    assert (preference["reason"], preference["origin"]) == ("duplicate", "test:3")


def test_sample_copies_the_ids_of_kept_documents(folders: tuple[Path, Path, Path]) -> None:
    raw, _, out = folders
    texts = {row["id"]: row for row in pq.read_table(raw / "documents.parquet").to_pylist()}
    meta = read_json(out / "documents" / "meta.json")
    for split in SPLITS:
        ids = np.fromfile(out / "documents" / f"{split}.bin", dtype="<u2")
        index = pq.read_table(out / "documents" / f"{split}.parquet").to_pylist()
        assert meta["n_tokens"][split] == len(ids)
        assert meta["n_documents"][split] == len(index)
        for row in index:
            document = ids[row["start"] : row["start"] + row["length"]]
            assert bytes(document[:-1].tolist()).decode() == texts[row["id"]]["text"]
            assert document[-1] == meta["end_of_text"]
            assert row["bits"] == texts[row["id"]]["bits"]


def test_sample_splits_records_by_hash_unless_pinned(
    folders: tuple[Path, Path, Path],
) -> None:
    shares = params().split
    for kind in KINDS[1:]:
        for split in SPLITS:
            table = pq.read_table(folders[2] / kind / f"{split}.parquet")
            assert table.schema.equals(SCHEMAS[kind])
            pinned = kind == "preferences"
            assert pinned or all(split_of(i, shares) == split for i in table["id"].to_pylist())


def test_sample_is_equal_when_ids_are_copied_in_pieces(
    folders: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, tokens, out = folders
    monkeypatch.setattr(shard_writer, "_IDS", 50)
    monkeypatch.setattr(tables, "_ROWS", 7)
    sample(params(), raw, tokens, tmp_path / "samples", progress=True)
    assert sha256_of(tmp_path / "samples") == sha256_of(out)


def test_sample_leaves_other_kinds_equal_with_new_tokens(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, _, out = folders
    sample(
        params(),
        raw,
        write_tokens(raw, tmp_path / "tokens", dtype="uint32"),
        tmp_path / "samples",
        progress=False,
    )
    for kind in KINDS[1:]:
        assert sha256_of(tmp_path / "samples" / kind) == sha256_of(out / kind)
    assert sha256_of(tmp_path / "samples" / "documents") != sha256_of(out / "documents")


def test_sample_moves_no_record_when_others_are_added(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    more = records()
    more["labelled"] += [{"text": f"Yeni {n}", "label": "ham"} for n in range(50)]
    raw = write_raw(tmp_path / "raw", **more)
    sample(params(), raw, folders[1], tmp_path / "samples", progress=False)
    for split in SPLITS:
        before = pq.read_table(folders[2] / "labelled" / f"{split}.parquet")["id"].to_pylist()
        after = pq.read_table(tmp_path / "samples" / "labelled" / f"{split}.parquet")["id"].to_pylist()
        assert after[: len(before)] == before


def test_sample_keeps_leaks_without_decontamination(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, tokens, _ = folders
    ledger = sample(params(decontaminate=False), raw, tokens, tmp_path / "samples", progress=False)
    assert all(account["removed"]["contamination"] == 0 for account in ledger.values())
    ids = pq.read_table(tmp_path / "samples" / "documents" / "train.parquet")["id"].to_pylist()
    documents = pq.read_table(raw / "documents.parquet")
    assert documents["id"].to_pylist()[101] in ids


def test_sample_writes_empty_files_for_kinds_without_records(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=[{"text": f"Belge {n}", "split": "train"} for n in range(5)])
    ledger = sample(params(), raw, write_tokens(raw, tmp_path / "tokens"), tmp_path / "samples", progress=False)
    assert ledger["labelled"]["rows_in"] == 0
    assert pq.read_table(tmp_path / "samples" / "labelled" / "train.parquet").schema.equals(SCHEMAS["labelled"])
    assert (tmp_path / "samples" / "documents" / "test.bin").stat().st_size == 0
    assert "documents" in describe(ledger)


def test_sample_takes_questions_with_and_without_earlier_turns(tmp_path: Path) -> None:
    """Lost otherwise: a file of single questions and conversations stops the stage with a traceback."""
    turns = json.dumps([{"role": "user", "content": "Merhaba!"}, {"role": "assistant", "content": "Merhaba."}])
    rows = [
        {
            "instruction": f"Soru {i}: {i * 7919} nedir?",
            "input": "",
            "output": f"{i} numaralı yanıt",
            "history": turns if i % 2 else "",
        }
        for i in range(30)
    ]
    raw = write_raw(tmp_path / "raw", **records() | {"instructions": [*rows, rows[1] | {"output": "başka"}]})
    tokens = write_tokens(raw, tmp_path / "tokens")
    counts = sample(params(), raw, tokens, tmp_path / "samples", progress=False)["instructions"]
    assert sum(counts["kept"].values()) + sum(counts["removed"].values()) == 31


def test_sample_keeps_the_old_folder_without_training_documents(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=[{"text": "Tek belge", "split": "test"}])
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "old").touch()
    with pytest.raises(UserError, match=r"documents: none is left to train on.*'test': 1.*download\.sources"):
        sample(params(), raw, write_tokens(raw, tmp_path / "tokens"), tmp_path / "samples", progress=False)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert (tmp_path / "samples" / "old").exists()


def test_sample_refuses_tokens_of_other_documents(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=[{"text": f"Başka {n}"} for n in range(103)])
    with pytest.raises(UserError, match=r"index\.parquet.*dvc repro tokenize"):
        sample(params(), raw, folders[1], tmp_path / "samples", progress=False)


@pytest.mark.parametrize("missing", ["raw/labelled.parquet", "tokens/index.parquet", "tokens/ids.bin"])
def test_sample_names_a_missing_file(folders: tuple[Path, Path, Path], tmp_path: Path, missing: str) -> None:
    for folder in folders[:2]:
        shutil.copytree(folder, tmp_path / folder.name)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match=f"{Path(missing).name}: no such file; `dvc repro"):
        sample(params(), tmp_path / "raw", tmp_path / "tokens", tmp_path / "samples", progress=False)


def test_sample_keeps_added_columns_and_says_how_it_split(tmp_path: Path) -> None:
    """Evaluation by slice and weighting by column read them; a split that falls back to the hash must be told."""
    documents = [{"text": f"Belge {n}", "group": f"g{n % 7}" if n < 60 else None} for n in range(80)]
    labelled = [{"text": f"Mesaj {n}", "label": "ham", "group": f"g{n % 7}", "region": "ege"} for n in range(60)]
    raw = write_raw(tmp_path / "raw", documents=documents, labelled=labelled)
    by_group = params()
    by_group = by_group.model_copy(update={"split": by_group.split.model_copy(update={"by": "group", "seed": 3})})
    out = tmp_path / "samples"
    ledger = sample(by_group, raw, write_tokens(raw, tmp_path / "tokens"), out, progress=False)
    of_split: dict[str, set[str]] = {}
    for split in SPLITS:
        rows = pq.read_table(out / "labelled" / f"{split}.parquet").to_pylist()
        assert {row["region"] for row in rows} == {"ege"}
        index = pq.read_table(out / "documents" / f"{split}.parquet").to_pylist()
        of_split[split] = {row["group"] for row in [*rows, *index] if row["group"]}
    assert sum(map(len, of_split.values())) == 7, "a group is in one split, of all kinds"
    assert min(map(len, of_split.values())) > 0
    assert ledger["documents"]["split"] == {"by": "group", "without_group": 20}
    assert "split" not in ledger["instructions"]
    assert "documents split by group; 20 records without a group by the hash of their content" in describe(ledger)
    assert "labelled split by group\n" in describe(ledger)


def test_sample_by_time_names_its_cut_points(tmp_path: Path) -> None:
    documents = [{"text": f"Belge {n}", "split": "train"} for n in range(5)]
    labelled = [{"text": f"Mesaj {n}", "label": "ham", "time": f"2024-01-{n + 1:02}T00:00:00Z"} for n in range(20)]
    raw = write_raw(tmp_path / "raw", documents=documents, labelled=labelled)
    by_time = params()
    by_time = by_time.model_copy(update={"split": by_time.split.model_copy(update={"by": "time"})})
    ledger = sample(by_time, raw, write_tokens(raw, tmp_path / "tokens"), tmp_path / "samples", progress=False)
    assert ledger["labelled"]["kept"] == {"train": 12, "validation": 4, "test": 4}
    words = "labelled split by time: validation from 2024-01-13T00:00:00Z, test from 2024-01-17T00:00:00Z"
    assert words in describe(ledger)
    assert read_json(tmp_path / "samples" / "ledger.json")["labelled"]["split"]["by"] == "time"
