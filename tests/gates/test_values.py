"""If these fail, ids that were taken for labels fill the memory, or the rarest label is not the one that is shown."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import external
from pipeline.gates.profiles import values as module
from pipeline.gates.profiles.values import DistinctValues, Rest


def counted(column: list[str], folder: Path, batch: int = 3) -> tuple[DistinctValues, Path]:
    values, file = DistinctValues(folder), folder / "column.parquet"
    pq.write_table(pa.table({"label": pa.array(column, pa.string())}), file)
    for first in range(0, len(column), batch):
        values.add(pa.array(column[first : first + batch], pa.string()), first)
    return values, file


@given(st.lists(st.sampled_from([*"abcdefğş", "", "a b"]), max_size=60))
@settings(max_examples=40, deadline=None)
def test_rarest_counts_as_a_counter_does(tmp_path_factory: pytest.TempPathFactory, column: list[str]) -> None:
    values, file = counted(column, tmp_path_factory.mktemp("column"))
    assert values.rarest(file, "label", 0)[0] == Counter(column)
    assert values.most_frequent(file, "label") == (Counter(column), Rest(0, 0, 0))
    assert values.number() == len(set(column))
    assert values.counts_of(["a", "z"]) == {"a": column.count("a"), "z": 0}


def test_rarest_adds_up_the_values_that_it_does_not_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VALUES", 2)
    monkeypatch.setattr(external, "PART", 4)  # several parts
    values, file = counted([*"abcc", *"dddd", *"eeeee", *"ffffff"], tmp_path)
    listed, rare, other = values.rarest(file, "label", 5)
    assert listed == {"a": 1, "b": 1}
    assert rare == Rest(2, 6, 2), "c and d have fewer than 5 records"
    assert other == Rest(2, 11, 5)
    assert values.most_frequent(file, "label") == ({"e": 5, "f": 6}, Rest(4, 8, 1))


def test_add_gives_equal_hashes_to_equal_values(tmp_path: Path) -> None:
    first, second, third = DistinctValues(tmp_path).add(pa.array(["spam", "ham", "spam"]), 0)
    assert first == third != second
