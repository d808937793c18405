"""If these fail, records are lost or given twice between a file on disk and what is made of it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import external, tables
from pipeline.data.external import Digests, DiskArray, group_starts, in_order


def rows_of(values: np.ndarray, folder: Path | None = None) -> DiskArray:
    made = DiskArray(folder, values.dtype, values.shape[1])
    for first in range(0, len(values), 7):
        made.append(values[first : first + 7])
    return made


def test_disk_array_reads_rows_by_number_and_leaves_no_file(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.int64).reshape(20, 3)
    made = rows_of(values, tmp_path)
    assert len(made) == 20
    assert made.read(4, 9).tolist() == values[4:9].tolist()
    assert made.take(np.array([7, 8, 3, 19, 3])).tolist() == values[[7, 8, 3, 19, 3]].tolist()
    assert made.take(np.array([], np.int64)).shape == (0, 3)
    made.append(values[:1])
    assert made.read(20, 21).tolist() == values[:1].tolist()
    del made
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1)), st.integers(0, 3)), max_size=400),
    st.integers(1, 50),
)
def test_in_order_sorts_in_parts(pairs: list[tuple[int, int]], part: int) -> None:
    """Equal keys stay together and in order, few keys or many, in however small a memory."""
    values = np.array([(key, other, row) for row, (key, other) in enumerate(pairs)], np.uint64).reshape(-1, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "PART", part)
        parts = list(in_order(rows_of(values), keys=2))
    expected = sorted(values.tolist())
    assert [row for one in parts for row in one.tolist()] == expected
    seen = [set(one[:, 0].tolist()) for one in parts]
    assert sum(map(len, seen)) == len({key for key, _ in pairs}), "one key in two parts"


def test_group_starts_are_where_a_key_changes() -> None:
    part = np.array([[1, 1], [1, 2], [1, 2], [3, 2]], np.uint64)
    assert group_starts(part).tolist() == [0, 3]
    assert group_starts(part, keys=2).tolist() == [0, 1, 3]
    assert group_starts(part[:0]).tolist() == []


def test_digests_are_a_sequence() -> None:
    made = Digests(None)
    made.append([b"a" * 16, b"b" * 16])
    made.append([b"c" * 16])
    assert list(made) == [b"a" * 16, b"b" * 16, b"c" * 16]


def test_tables_are_equal_after_writing_and_reading_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_GROUP_ROWS", 50)
    table = pa.table({"n": range(233), "text": [f"satır {n} ğ" for n in range(233)]})
    with tables.writing(tmp_path / "a.parquet", table.schema) as writer:
        for first in range(0, 233, 31):
            writer.write(table.slice(first, 31))
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [50, 50, 50, 50, 33]
    for rows in (1, 7, 50, 64, 1000):
        found = list(tables.batches(tmp_path / "a.parquet", rows=rows))
        assert pa.Table.from_batches(found).equals(table)
        assert {len(batch) for batch in found[:-1]} <= {rows}
    assert next(tables.batches(tmp_path / "a.parquet", ["n"], 300)).schema.names == ["n"]


def test_writing_leaves_no_file_after_an_error(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    with tables.writing(tmp_path / "empty.parquet", schema):
        pass
    assert pq.read_table(tmp_path / "empty.parquet").schema.equals(schema)
    with pytest.raises(pa.ArrowInvalid), tables.writing(tmp_path / "half.parquet", schema) as writer:
        writer.write(pa.table({"other": ["column"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.parquet"]
