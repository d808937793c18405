"""Texts without ids: a rejected row with its reason at tokenizing and sampling, never a panic or a lost record."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import config, files
from pipeline.config.params import Tokenize
from pipeline.data.records import SPLITS, TWIN, record_id
from pipeline.data.samples import describe, sample
from pipeline.data.tokens import describe as tokens_in_words
from pipeline.data.tokens import tokenize
from pipeline.data.unencodable import REJECTIONS_FILE
from pipeline.errors import UserError
from pipeline.tokenizer import Tokenizer
from pipeline.tokenizer.adopted import pin
from tests.folders import write_raw
from tests.tokenizer import foreign

HINDI = "\u0905\u0906"  # its first byte, 0xE0, has no token in `missing_bytes`


def settings(kind: str, folder: Path) -> Tokenize:
    """The `tokenize` section that adopts a small vocabulary of a kind."""
    path = foreign.write(kind, folder)
    return Tokenize(method="folder", vocab_size=None, pattern=None, path=str(path), sha256=pin(path))


def records() -> dict[str, list[dict[str, Any]]]:
    """Records of every kind, some of which need a missing byte."""
    documents = [{"text": f"Belge {n} {'ışık gün ' * (n % 7)}{HINDI if n in (3, 600) else ''}"} for n in range(700)]
    labelled = [{"text": f"Mesaj {n}" + HINDI * (n == 5), "label": "ab"[n % 2]} for n in range(40)]
    instructions = [{"instruction": f"{n} kaç?", "input": "", "output": str(n) + "\0" * (n == 7)} for n in range(40)]
    for number, row in enumerate(instructions):
        asked = "a\0" if number == 9 else "a"
        row["history"] = json.dumps([{"role": "user", "content": asked}, {"role": "assistant", "content": "x"}])
    preferences = [{"instruction": f"Söyle {n}", "input": "", "chosen": "a", "rejected": "b"} for n in range(20)]
    return {"documents": documents, "labelled": labelled, "instructions": instructions, "preferences": preferences}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, str]:
    """data/raw, data/tokens and data/samples of these records, and what the stages said."""
    folder, params = tmp_path_factory.mktemp("unencodable"), config.load()
    split = params.split.model_copy(update={"validation": 0.2, "test": 0.2})
    params = params.model_copy(
        update={"split": split, "sample": params.sample.model_copy(update={"decontaminate": False})}
    )
    raw = write_raw(folder / "raw", **records())
    chosen = settings("missing_bytes", folder / "theirs")
    summary = tokenize(chosen, split, raw / "documents.parquet", folder / "tokens")
    counts = sample(params, raw, folder / "tokens", folder / "samples", progress=False)
    return raw, folder / "tokens", folder / "samples", tokens_in_words(summary, chosen) + "\n" + describe(counts)


def test_tokenize_lists_documents_without_ids(folders: tuple[Path, Path, Path, str]) -> None:
    raw, tokens, _, said = folders
    rejections = pq.read_table(tokens / REJECTIONS_FILE).to_pylist()
    texts = pq.read_table(raw / "documents.parquet").to_pylist()
    assert [row["row"] for row in rejections] == [3, 600]
    assert [row["id"] for row in rejections] == [texts[3]["id"], texts[600]["id"]]
    assert {row["reason"] for row in rejections} == {"no token for byte 0xe0"}
    assert "character 'अ' (U+0905) at position" in rejections[0]["detail"]
    meta = files.read_json(tokens / "meta.json")
    assert (meta["refuses"], meta["n_rejected"]) == (True, 2)
    assert "rejected documents: 2 (no token for byte 0xe0: 2)" in said


def test_tokenize_encodes_the_other_documents_of_the_batch(folders: tuple[Path, Path, Path, str]) -> None:
    """A rejected document would shift the ids of all that follow."""
    raw, tokens, _, _ = folders
    ids, tokenizer = np.fromfile(tokens / "ids.bin", "<u2"), Tokenizer.load(tokens / "tokenizer")
    index = pq.read_table(tokens / "index.parquet").to_pylist()
    for number, (row, record) in enumerate(
        zip(index, pq.read_table(raw / "documents.parquet").to_pylist(), strict=True)
    ):
        own = ids[row["start"] : row["start"] + row["length"]].tolist()
        expected = [] if number in (3, 600) else tokenizer.encode(record["text"])
        assert own == [*expected, tokenizer.end_of_text]


def test_sample_removes_records_without_ids_with_a_reason(folders: tuple[Path, Path, Path, str]) -> None:
    """Lost otherwise: training stops with a panic at the first Hindi letter, hours after the gates passed."""
    raw, _, samples, said = folders
    counts = files.read_json(samples / "ledger.json")
    removed = {kind: counted["removed"]["unencodable"] for kind, counted in counts.items()}
    assert removed == {"documents": 2, "labelled": 1, "instructions": 2, "preferences": 0}
    for counted in counts.values():
        assert counted["rows_in"] == sum(counted["kept"].values()) + sum(counted["removed"].values())
    rows = [row for row in pq.read_table(samples / "removed.parquet").to_pylist() if row["reason"] == "unencodable"]
    assert len(rows) == 5
    assert {row["of"] for row in rows} == {None}
    assert HINDI in next(row["text"] for row in rows if row["kind"] == "labelled")
    assert "unencodable" in said
    texts = [text for split in SPLITS for text in pq.read_table(samples / "labelled" / f"{split}.parquet")["text"]]
    assert not any(HINDI in text.as_py() for text in texts)
    assert len(texts) == pq.read_metadata(raw / "labelled.parquet").num_rows - 1


def test_sample_keeps_a_record_that_resembles_one_without_ids(tmp_path: Path) -> None:
    """Lost otherwise: both, the one as unencodable and its clean copy as a duplicate of it."""
    tail = " ".join(f"kelime{n}" for n in range(80))
    labelled = [{"text": f"{tail} son{HINDI * first}", "label": "a"} for first in (True, False)]
    documents = [{"text": f"Belge {n}"} for n in range(40)] + [{"text": row["text"]} for row in labelled]
    raw, params = write_raw(tmp_path / "raw", documents=documents, labelled=labelled), config.load()
    split = params.split.model_copy(update={"validation": 0.0, "test": 0.0})
    tokenize(settings("missing_bytes", tmp_path / "m"), split, raw / "documents.parquet", tmp_path / "t")
    counts = sample(params.model_copy(update={"split": split}), raw, tmp_path / "t", tmp_path / "s", progress=False)
    for kind in ("documents", "labelled"):
        assert counts[kind]["removed"]["unencodable"] == 1
        assert sum(counts[kind]["removed"].values()) == 1
    assert pq.read_table(tmp_path / "s/labelled/train.parquet")["text"].to_pylist() == [labelled[1]["text"]]


def test_sample_leaves_out_twins_with_their_record_when_it_has_no_ids(tmp_path: Path) -> None:
    record = {"text": f"Mesaj {HINDI} bir", "label": "a", "source": "sms"}
    of = record_id("labelled", record["text"], "a")
    twins = [record | {"text": text, TWIN: of, "source": "noisy"} for text in ("Mesaj bir", f"Mesaj {HINDI} bri")]
    documents, other = [{"text": f"Belge {n}"} for n in range(40)], record | {"text": "Başka bir mesaj"}
    raw = write_raw(tmp_path / "raw", documents=documents, labelled=[record, *twins, other])
    params = config.load()
    split = params.split.model_copy(update={"validation": 0.0, "test": 0.0})
    tokenize(settings("missing_bytes", tmp_path / "m"), split, raw / "documents.parquet", tmp_path / "t")
    counts = sample(params.model_copy(update={"split": split}), raw, tmp_path / "t", tmp_path / "s", progress=False)
    removed = {reason: n for reason, n in counts["labelled"]["removed"].items() if n}
    assert removed == {"unencodable": 2, "twin_of_removed": 1}
    assert pq.read_table(tmp_path / "s/labelled/train.parquet")["text"].to_pylist() == [other["text"]]


def test_tokenize_counts_unknown_tokens(tmp_path: Path) -> None:
    """Lost otherwise: nothing says that a vocabulary does not know the text."""
    raw = write_raw(tmp_path / "raw", documents=[{"text": "ışık qqq"}, {"text": "gün zzz www"}] * 9)
    summary = tokenize(
        settings("wordlevel", tmp_path / "w"), config.load().split, raw / "documents.parquet", tmp_path / "t"
    )
    assert summary["n_unknown_tokens"] == files.read_json(tmp_path / "t/meta.json")["n_unknown_tokens"] == 27
    assert "unknown tokens: 27, a share of 0.4286" in tokens_in_words(summary, settings("wordlevel", tmp_path / "w"))


def test_tokenize_refuses_documents_that_all_have_no_ids(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=[{"text": HINDI + str(n)} for n in range(9)])
    with pytest.raises(UserError, match=r"none of its 9 documents can be encoded \(no token for byte 0xe0: 9\)"):
        tokenize(
            settings("missing_bytes", tmp_path / "m"), config.load().split, raw / "documents.parquet", tmp_path / "t"
        )
    assert not (tmp_path / "t").exists()


def test_tokenize_writes_nothing_new_for_a_vocabulary_that_encodes_every_text(tmp_path: Path) -> None:
    """The outs of a vocabulary of ours would change, and every later stage run again."""
    raw = write_raw(tmp_path / "raw", documents=[{"text": f"ışık {n}"} for n in range(90)])
    trained = Tokenize(method="train", vocab_size=280, pattern="gpt2", path=None, sha256=None)
    tokenize(trained, config.load().split, raw / "documents.parquet", tmp_path / "t")
    assert not (tmp_path / "t" / REJECTIONS_FILE).exists()
    assert set(files.read_json(tmp_path / "t/meta.json")) == {
        "dtype", "vocab_size", "n_documents", "n_tokens", "end_of_text",
    }  # fmt: skip
