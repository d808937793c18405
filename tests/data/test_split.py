"""If these fail, a test record drifts into training when data is added, and every score is worth nothing."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.params import Split
from pipeline.data import tables
from pipeline.data.placement import placement
from pipeline.data.records import SPLITS, schema
from pipeline.data.split import CutPoints, Splits, resolve, resolve_column, split_of
from pipeline.errors import UserError

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


def stored(folder: Path, rows: list[dict[str, Any]], added: tuple[str, ...]) -> Path:
    """labelled.parquet; a record needs nothing but what matters to the test."""
    filled = {"source": "a", "language": "en", "origin": "a:1", "text": "t", "label": "x", "split": None}
    whole = [filled | {"id": f"{number:016x}"} | row for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(whole, schema=schema("labelled", added)), folder / "labelled.parquet")
    return folder / "labelled.parquet"


def placed(path: Path, split: Split) -> list[str]:
    places = placement(path, split)
    return [SPLITS[number] for number in places.splits]


def days(*numbers: int) -> list[dict[str, Any]]:
    return [{"time": f"2024-01-{number:02}T00:00:00Z"} for number in numbers]


def test_splits_by_group_keep_every_group_in_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a customer of the test split is known from training."""
    monkeypatch.setattr(tables, "_ROWS", 100)
    split = Split(by="group", seed=1, validation=0.2, test=0.2)
    rows = [{"group": f"g{number % 300}" if number % 4 else None} for number in range(2000)]
    path = stored(tmp_path, rows, ("group",))
    found = placed(path, split)
    of_group = {(row["group"], name) for row, name in zip(rows, found, strict=True) if row["group"]}
    assert len(of_group) == len({group for group, _ in of_group})
    assert all(name == split_of(group, split) for group, name in of_group), "equal for every kind and source"
    alone = [(f"{i:016x}", name) for i, (row, name) in enumerate(zip(rows, found, strict=True)) if not row["group"]]
    assert all(name == split_of(identity, split) for identity, name in alone)
    assert found.count("test") / len(found) == pytest.approx(0.2, abs=0.05)
    assert placement(path, split).rule == {"by": "group", "without_group": 500}


@pytest.mark.parametrize(("by", "column"), [("group", "group"), ("time", "time")])
def test_splits_prefer_a_pinned_split(by: Any, column: str, tmp_path: Path) -> None:
    rows = [row | {"group": "one"} for row in days(*range(1, 21))]
    for i, row in enumerate(rows[:6]):
        row["split"] = SPLITS[i % 3]
    path = stored(tmp_path, rows, (column,))
    assert placed(path, Split(by=by, seed=1, validation=0.2, test=0.2))[:6] == [*SPLITS, *SPLITS]


def test_splits_by_time_give_the_latest_records_to_test_and_those_before_to_validation(tmp_path: Path) -> None:
    rows = days(*[(number * 7) % 20 + 1 for number in range(20)])
    path = stored(tmp_path, rows, ("time",))
    split = Split(by="time", seed=1, validation=0.2, test=0.1)
    found = placed(path, split)
    names = {row["time"]: name for row, name in zip(rows, found, strict=True)}
    assert [names[moment] for moment in sorted(names)] == ["train"] * 14 + ["validation"] * 4 + ["test"] * 2
    assert Splits.of(path, split).cuts == CutPoints("2024-01-15T00:00:00Z", "2024-01-19T00:00:00Z")
    assert placement(path, split).rule == {
        "by": "time", "validation_from": "2024-01-15T00:00:00Z", "test_from": "2024-01-19T00:00:00Z", "without_time": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("moments", "shares", "counts"),
    [
        ([1] * 5 + [2] * 5 + [3] * 90, (0.1, 0.1), (5, 5, 90)),  # one day holds most: training keeps a day of its own
        ([1] * 90 + [2] * 4 + [3] * 6, (0.05, 0.05), (90, 4, 6)),
        ([1] * 50 + [2] * 50, (0.0, 0.1), (50, 0, 50)),
        ([1] * 50 + [2] * 30 + [3] * 20, (0.1, 0.0), (80, 20, 0)),
        ([*range(1, 11)] * 10, (0.14, 0.16), (70, 10, 20)),
        ([1, 1, 1], (0.0, 0.0), (3, 0, 0)),
    ],
)
def test_splits_by_time_keep_equal_times_together_as_near_to_the_shares_as_they_can(
    moments: list[int], shares: tuple[float, float], counts: tuple[int, int, int], tmp_path: Path
) -> None:
    rows = days(*moments)
    split = Split(by="time", seed=1, validation=shares[0], test=shares[1])
    found = Counter(placed(stored(tmp_path, rows, ("time",)), split))
    assert tuple(found[name] for name in SPLITS) == counts


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 28), min_size=3, max_size=60), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_splits_by_time_are_in_order_and_none_is_empty(
    tmp_path_factory: pytest.TempPathFactory, moments: list[int], validation: float, test: float
) -> None:
    rows = days(*moments)
    path = stored(tmp_path_factory.mktemp("split"), rows, ("time",))
    split = Split(by="time", seed=1, validation=validation, test=test)
    if len(set(moments)) < 3:
        with pytest.raises(UserError, match=r"split\.by is time, .* labelled have [12] different times; expected 3 or"):
            placed(path, split)
        return
    times: dict[str, list[int]] = {name: [] for name in SPLITS}
    for moment, name in zip(moments, placed(path, split), strict=True):
        times[name].append(moment)
    assert max(times["train"]) < min(times["validation"])
    assert max(times["validation"]) < min(times["test"])


def test_splits_by_time_use_the_hash_where_a_record_has_no_time(tmp_path: Path) -> None:
    """Documents without dates stand beside dated ones of another source; the stage says how many."""
    rows = [*days(*range(1, 21)), *({"time": None} for _ in range(200))]
    split = Split(by="time", seed=1, validation=0.2, test=0.2)
    path = stored(tmp_path, rows, ("time",))
    found = placed(path, split)
    assert found[20:] == [split_of(f"{number:016x}", split) for number in range(20, 220)]
    assert Counter(found[:20]) == {"train": 12, "validation": 4, "test": 4}
    assert placement(path, split).rule["without_time"] == 200


def test_splits_are_by_record_where_a_kind_has_no_such_column(tmp_path: Path) -> None:
    path = stored(tmp_path, [{} for _ in range(50)], ())
    by_record = placed(path, Split(by="record", seed=1, validation=0.2, test=0.2))
    for by in ("group", "time"):
        split = Split(by=by, seed=1, validation=0.2, test=0.2)
        assert placed(path, split) == by_record
        assert placement(path, split).rule == {}


def test_splits_by_time_put_a_twin_beside_its_record_and_do_not_count_it(tmp_path: Path) -> None:
    """Counted, the twins of late records would move the cut points, and a share of test with them."""
    rows = days(*range(1, 21))
    twins = [row | {"twin_of": f"{number:016x}"} for number, row in enumerate(rows) if number < 5]
    split = Split(by="time", seed=1, validation=0.2, test=0.2)
    found = placed(stored(tmp_path, [*rows, *twins, *twins], ("time", "twin_of")), split)
    assert Counter(found[:20]) == {"train": 12, "validation": 4, "test": 4}
    assert set(found[20:]) == {"train"}
