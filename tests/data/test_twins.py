"""Lost otherwise: a changed copy of a held-out record is trained on, or all copies vanish as duplicates."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import config
from pipeline.config.params import Params
from pipeline.data.records import SPLITS, TWIN, record_id
from pipeline.data.samples import describe, sample
from pipeline.data.split import split_of
from pipeline.files import read_json
from pipeline.gates import samples as gate
from tests.folders import write_raw, write_tokens
from tests.gates.builders import GATES

TAIL = " ".join(f"kelime{number}" for number in range(80))


def params(by: str = "record", **changes: Any) -> Params:
    loaded = config.load()
    split = loaded.split.model_copy(update={"validation": 0.2, "test": 0.2, "by": by})
    return loaded.model_copy(update={"split": split, "sample": loaded.sample.model_copy(update=changes)})


def message(text: str, **other: Any) -> dict[str, Any]:
    return {"text": text, "label": "ham", "source": "sms"} | other


def twin(record: dict[str, Any], text: str, **other: Any) -> dict[str, Any]:
    of = record_id("labelled", record["text"], record["label"])
    return record | {"text": text, TWIN: of, "source": "noisy"} | other


def sampled(
    folder: Path, labelled: list[dict[str, Any]], settings: Params | None = None
) -> tuple[dict[str, Any], dict]:
    """The ledger of the labelled records, and their rows by split; `removed`: rows of removed.parquet."""
    documents = [{"text": f"Belge {n}. Çok güzel."} for n in range(60)]
    raw = write_raw(folder / "raw", documents=documents, labelled=labelled)
    tokens = write_tokens(raw, folder / "tokens")
    counts = sample(settings or params(), raw, tokens, folder / "samples", progress=False)
    out = folder / "samples"
    assert counts == read_json(out / "ledger.json")
    rows = {split: pq.read_table(out / f"labelled/{split}.parquet").to_pylist() for split in SPLITS}
    removed = [row for row in pq.read_table(out / "removed.parquet").to_pylist() if row["kind"] == "labelled"]
    account = counts["labelled"]
    assert account["rows_in"] == len(labelled) == sum(account["kept"].values()) + sum(account["removed"].values())
    assert sum(account["removed"].values()) == len(removed)
    return counts, rows | {"removed": removed}


def test_sample_keeps_twins_of_documents_in_training_alone(tmp_path: Path) -> None:
    texts = [f"Belge {n} " + " ".join(f"kadın{k * n}" for k in range(40)) for n in range(60)]
    documents = [{"text": text, "source": "own"} for text in texts]
    twins = [
        {"text": text.replace("kadın", "erkek", 1), "source": "twins", TWIN: record_id("documents", text)}
        for text in texts
    ]
    raw = write_raw(tmp_path / "raw", documents=[*documents, *twins])
    counts = sample(params(), raw, write_tokens(raw, tmp_path / "tokens"), tmp_path / "samples", progress=False)
    kept = {split: pq.read_table(tmp_path / f"samples/documents/{split}.parquet").to_pylist() for split in SPLITS}
    train = {row["id"] for row in kept["train"] if not row[TWIN]}
    assert {row[TWIN] for row in kept["train"] if row[TWIN]} == train
    assert not [row for name in ("validation", "test") for row in kept[name] if row[TWIN]]
    assert counts["documents"]["twins"]["kept"] == len(train) > 20


def test_sample_keeps_twins_in_training_and_leaves_them_out_elsewhere(tmp_path: Path) -> None:
    records = [message(f"mesaj {k} " + " ".join(f"çok{k * n}" for n in range(40))) for k in range(100)]
    twins = [twin(record, record["text"].replace("ç", "c", 1)) for record in records]
    counts, rows = sampled(tmp_path, records + twins)
    split = {
        record_id("labelled", r["text"], r["label"]): split_of(
            record_id("labelled", r["text"], r["label"]), params().split
        )
        for r in records
    }
    trained = [row for row in rows["train"] if row[TWIN]]
    assert {row[TWIN] for row in trained} == {identity for identity, name in split.items() if name == "train"}
    assert not [row for name in ("validation", "test") for row in rows[name] if row[TWIN]]
    outside = sum(name != "train" for name in split.values())
    assert outside > 20
    account = counts["labelled"]
    assert account["removed"]["twin_outside_training"] == outside
    assert account["twins"]["kept"] == len(trained) == 100 - outside
    assert account["twins"]["share_of_training"] == 0.5
    assert account["twins"]["left_out"] == {"noisy": outside}
    assert "twins: " in describe(counts)
    assert "50.0% of it" in describe(counts)


def test_sample_counts_no_twin_as_a_duplicate_of_its_record_but_of_others(tmp_path: Path) -> None:
    record, other = message(f"a {TAIL}", split="train"), message(f"başka söz {TAIL[::-1]}", split="train")
    twins = [twin(record, f"A {TAIL}"), twin(record, f"a {TAIL.upper()}"), twin(other, f"a {TAIL} evet")]
    counts, rows = sampled(tmp_path, [record, other, *twins])
    assert [row["text"] for row in rows["train"]] == [record["text"], other["text"], twins[0]["text"], twins[1]["text"]]
    (gone,) = rows["removed"]
    assert (gone["text"], gone["reason"]) == (twins[2]["text"][:200], "near_duplicate")
    assert counts["labelled"]["twins"]["kept"] == 2


def test_sample_removes_no_record_for_a_twin(tmp_path: Path) -> None:
    record, later = message("kısa söz", split="train"), message(f"a {TAIL}", split="train")
    near = twin(record, f"a {TAIL} evet")
    _, rows = sampled(tmp_path, [record, near, later])
    assert [row["text"] for row in rows["train"]] == [record["text"], later["text"]]
    assert [row["text"] for row in rows["removed"]] == [near["text"][:200]]


def test_sample_removes_a_twin_that_resembles_a_held_out_record(tmp_path: Path) -> None:
    held_out, record = message(f"a {TAIL}", split="test"), message("başka bir söz", split="train")
    leak = twin(record, f"a {TAIL} evet")
    _, rows = sampled(tmp_path, [held_out, record, leak])
    assert [(row["text"], row["reason"]) for row in rows["removed"]] == [(leak["text"][:200], "contamination")]


def test_sample_leaves_out_the_twin_of_a_removed_record(tmp_path: Path) -> None:
    held_out, record = message(f"a {TAIL}", split="test"), message(f"a {TAIL} evet", split="train")
    far = twin(record, "x".join(record["text"]))  # unlike its record and the held-out one
    missing = message("söz", split="train") | {TWIN: "0" * 16}
    counts, rows = sampled(tmp_path, [held_out, record, far, missing, message("son", split="train")])
    assert [row["text"] for row in rows["train"]] == ["son"]
    assert {row["text"]: row["reason"] for row in rows["removed"]} == {
        record["text"][:200]: "contamination", far["text"][:200]: "twin_of_removed", "söz": "twin_of_removed",
    }  # fmt: skip
    assert counts["labelled"]["removed"]["twin_of_removed"] == 2


@pytest.mark.parametrize("by", ["group", "time"])
def test_sample_puts_a_twin_where_its_record_is_when_split_by_group_or_time(tmp_path: Path, by: str) -> None:
    records = [
        message(f"mesaj {k} {k * 7} {k * 31}", group=f"g{k % 20}", time=f"2024-01-{k % 28 + 1:02}T00:00:00Z")
        for k in range(80)
    ]
    twins = [twin(record, record["text"].upper()) for record in records]
    _, rows = sampled(tmp_path, records + twins, params(by))
    places = {row["id"]: name for name in SPLITS for row in rows[name] if not row[TWIN]}
    assert set(places.values()) == set(SPLITS)
    kept = {row[TWIN] for row in rows["train"] if row[TWIN]}
    assert kept == {identity for identity, name in places.items() if name == "train"}


def test_sample_writes_no_trace_of_twins_where_there_are_none(tmp_path: Path) -> None:
    counts, _ = sampled(tmp_path, [message(f"mesaj {k} {k * 7}") for k in range(40)])
    assert "twins" not in counts["labelled"]
    assert set(counts["labelled"]["removed"]) == {"duplicate", "near_duplicate", "contamination"}


def test_gate_finds_no_overlap_and_full_coverage_beside_twins(tmp_path: Path) -> None:
    records = [message(f"mesaj {k} " + " ".join(f"söz{k * n}" for n in range(12))) for k in range(1, 100)]
    twins = [twin(record, record["text"].replace("söz", "soz", 3)) for record in records]
    sampled(tmp_path, records + twins)
    from pipeline.files import write_json

    kept = {"sms": {"labelled": {"kept": 99}}, "noisy": {"labelled": {"kept": 99}}, "test": {"documents": {"kept": 60}}}
    write_json(tmp_path / "raw/ledger.json", {"sources": kept})
    write_tokens_tokenizer(tmp_path)
    frames = gate.profile(gate.Settings.model_validate(GATES["samples"]), tmp_path)
    assert {row["verbatim_overlap"] for row in frames["overlap"].rows} == {0}
    assert {row["near_overlap"] for row in frames["overlap"].rows} == {0}
    coverage = {row["source"]: row for row in frames["coverage"].rows}
    assert coverage["noisy"]["coverage_share"] == 1.0
    assert coverage["noisy"]["admitted"] < 99


def write_tokens_tokenizer(folder: Path) -> None:
    """A tokenizer, which the gate reads."""
    from pipeline import tokenizer

    tokenizer.train(["mesaj söz " * 50], 300, "gpt2").save(folder / "tokens/tokenizer")
