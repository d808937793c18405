"""If these fail, a resumed run trains on other data than an unbroken one, or some text is never learned."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config
from pipeline.data.samples import sample
from pipeline.data.shards import Shard, batch_rows, shuffled, windows
from pipeline.errors import UserError
from tests.folders import write_raw, write_tokens

TEXTS = [f"Belge {number}: güneş doğdu, {'kuş öttü, ' * (number % 7)}gün başladı." for number in range(60)]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    rows = [{"text": text, "bits": 8.0 * n if n % 2 else None} for n, text in enumerate(TEXTS)]
    raw = write_raw(folder / "raw", documents=rows)
    sample(config.load(), raw, write_tokens(raw, folder / "tokens"), folder / "samples", progress=False)
    return folder / "samples" / "documents"


def test_shard_reads_documents_in_order(documents: Path) -> None:
    shard = Shard.open(documents, "train")
    texts = [bytes(shard.document(row)[:-1].tolist()).decode() for row in range(len(shard))]
    assert texts == [text for text in TEXTS if text in texts]
    assert len(texts) > 40
    assert all(shard.document(row)[-1] == shard.end_of_text for row in range(len(shard)))
    assert shard.bytes.tolist() == [len(text.encode()) for text in texts]
    assert [np.isnan(bits) for bits in shard.bits] == [TEXTS.index(text) % 2 == 0 for text in texts]
    assert shard.index()["split"].unique().to_pylist() == ["train"]


def test_windows_cover_all_ids_once_with_shifted_targets(documents: Path) -> None:
    shard = Shard.open(documents, "train")
    cut = windows(shard, 16)
    assert len(cut) == (len(shard.ids) - 1) // 16
    rows = cut.rows(np.arange(len(cut)))
    assert rows.shape == (len(cut), 17)
    assert np.array_equal(rows[:, :-1].ravel(), shard.ids[: len(cut) * 16])
    assert np.array_equal(rows[:, 1:].ravel(), shard.ids[1 : len(cut) * 16 + 1])
    assert np.array_equal(cut.window(3), rows[3])
    with pytest.raises(IndexError, match="asked for"):
        cut.window(len(cut))


def test_windows_refuse_a_split_shorter_than_one_window(documents: Path) -> None:
    shard = Shard.open(documents, "test")
    with pytest.raises(UserError, match=r"test split has \d+ tokens.*context_length 100000"):
        windows(shard, 100_000)
    assert len(windows(shard, len(shard.ids) - 1)) == 1


def test_shard_names_damaged_and_missing_files(documents: Path, tmp_path: Path) -> None:
    shutil.copytree(documents, tmp_path / "documents")
    with (tmp_path / "documents" / "train.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"train\.bin: has \d+ bytes, expected \d+ by its index"):
        Shard.open(tmp_path / "documents", "train")
    (tmp_path / "documents" / "test.bin").unlink()
    with pytest.raises(UserError, match=r"test\.bin: no such file"):
        Shard.open(tmp_path / "documents", "test")


def test_shard_reads_32_bit_ids(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw", documents=[{"text": text} for text in TEXTS])
    tokens = write_tokens(raw, tmp_path / "tokens", dtype="uint32")
    sample(config.load(), raw, tokens, tmp_path / "samples", progress=False)
    shard = Shard.open(tmp_path / "samples" / "documents", "train")
    assert shard.ids.dtype == np.uint32
    assert bytes(shard.document(0)[:-1].tolist()).decode() in TEXTS


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**63 - 1))
def test_shuffled_is_a_permutation(n: int, seed: int) -> None:
    assert sorted(shuffled(n, np.arange(n), seed).tolist()) == list(range(n))


def test_shuffled_orders_are_equally_likely() -> None:
    counts = Counter(tuple(shuffled(4, np.arange(4), seed).tolist()) for seed in range(1200))
    assert len(counts) == 24
    assert min(counts.values()) > 25
    assert max(counts.values()) < 80


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 2**31))
def test_batch_rows_visit_every_row_once_per_epoch(n: int, batch_size: int, seed: int) -> None:
    steps = 2 * n // batch_size + 1
    batches = [batch_rows(n, batch_size, step, seed) for step in reversed(range(steps))][::-1]
    rows = np.concatenate(batches)
    assert sorted(rows[:n].tolist()) == list(range(n))
    assert sorted(rows[n : 2 * n].tolist()) == list(range(n))[: len(rows[n : 2 * n])] or len(rows) < 2 * n


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(0, 1000), st.integers(0, 2**31))
def test_batch_rows_of_all_ranks_are_the_batch_of_one(n: int, step: int, seed: int) -> None:
    whole = batch_rows(n, 12, step, seed)
    for world_size in (1, 2, 3, 4):
        parts = [batch_rows(n, 12, step, seed, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.stack(parts, axis=1).ravel(), whole)


def test_batch_rows_have_golden_values() -> None:
    assert batch_rows(1000, 6, 12345, 7).tolist() == [11, 920, 988, 484, 780, 506]


@pytest.mark.parametrize("wrong", [(0, 4, 0, 1), (4, 0, 0, 1), (4, 4, -1, 1), (4, 4, 0, 1, 0, 3), (4, 4, 0, 1, 2, 2)])
def test_batch_rows_refuse_impossible_arguments(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        batch_rows(*wrong)
