"""If these fail, a test record drifts into training when data is added, and every score is worth nothing."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.params import Split
from pipeline.data.split import resolve, resolve_column, split_of

GOLDEN = ["train", "test", "validation", "test", "test", "validation", "test", "train"]
IDS = [f"{number:016x}" for number in range(20_000)]
SHARES = st.floats(0, 0.4)


def test_split_of_meets_the_shares() -> None:
    split = Split(by="record", seed=1, validation=0.1, test=0.2)
    found = [split_of(record, split) for record in IDS]
    assert found.count("validation") / len(IDS) == pytest.approx(0.1, abs=0.01)
    assert found.count("test") / len(IDS) == pytest.approx(0.2, abs=0.01)


def test_split_of_has_golden_values() -> None:
    split = Split(by="record", seed=1, validation=0.3, test=0.3)
    assert [split_of(record, split) for record in "abcdefgh"] == GOLDEN


@settings(deadline=None)
@given(st.text(max_size=20), st.integers(), SHARES, SHARES, SHARES, SHARES)
def test_split_of_moves_only_training_records_for_a_larger_share(
    record: str, seed: int, validation: float, test: float, more_validation: float, more_test: float
) -> None:
    before = split_of(record, Split(by="record", seed=seed, validation=validation, test=test))
    larger = Split(
        by="record", seed=seed, validation=min(0.49, max(validation, more_validation)), test=max(test, more_test)
    )
    after = split_of(record, larger)
    assert after == before or before == "train"


@settings(deadline=None)
@given(st.text(max_size=20), st.integers())
def test_split_of_gives_an_empty_share_nothing(record: str, seed: int) -> None:
    assert split_of(record, Split(by="record", seed=seed, validation=0, test=0)) == "train"


def test_resolve_prefers_a_pinned_split() -> None:
    split = Split(by="record", seed=3, validation=0.2, test=0.2)
    pinned = ["train", None, "validation", "test", None] * 20
    ids = IDS[:100]
    column = resolve_column(pa.chunked_array([ids[:30], ids[30:]]), pa.array(pinned, pa.string()), split)
    assert column.to_pylist() == [resolve(record, at, split) for record, at in zip(ids, pinned, strict=True)]
    assert all(found == at for found, at in zip(column.to_pylist(), pinned, strict=True) if at)
    assert resolve_column(pa.array([], pa.string()), pa.array([], pa.string()), split).type == pa.string()


def test_split_of_depends_on_the_seed() -> None:
    one, other = (Split(by="record", seed=seed, validation=0.2, test=0.2) for seed in (1, 2))
    assert [split_of(record, one) for record in IDS] != [split_of(record, other) for record in IDS]
