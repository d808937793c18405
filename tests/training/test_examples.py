"""Examples of a recipe: few-shot draws and subsets."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.contracts import groups
from pipeline.errors import UserError
from pipeline.tasks import Reason
from pipeline.training.examples import FewShot, Records, Subset


def drawn(records: list[dict[str, Any]], few: int, seed: int) -> list[dict[str, Any]]:
    return [records[row] for row in FewShot(few, seed).draw(pa.Table.from_pylist(records))]


def test_few_shot_draws_evenly_from_the_labels_by_the_seed() -> None:
    """Lost otherwise: a few-shot comparison would see more of one label, or the same draw for every seed."""
    records = [{"text": str(i), "label": "spam" if i % 3 == 0 else "ham"} for i in range(60)]
    draws = [drawn(records, 8, seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert Counter(record["label"] for record in draws[0]) == {"ham": 8, "spam": 8}
    numbers = [int(record["text"]) for record in draws[0]]
    assert numbers == sorted(set(numbers))
    assert len(drawn(records, 1000, 1)) == 60
    assert len(drawn([{"instruction": str(i)} for i in range(9)], 4, 1)) == 4
    assert drawn([], 4, 1) == []


def test_subset_gives_the_chosen_examples_in_their_order() -> None:
    """Lost otherwise: a mixture would be validated on other examples than it chose."""
    subset = Subset(["a", "b", "c"], np.array([2, 0]))
    assert [subset[i] for i in range(len(subset))] == ["c", "a"]


def test_records_leave_out_what_makes_no_example_before_few_are_drawn() -> None:
    """Drawn first, a few-shot recipe could be left with nothing but records that make no example."""

    class Even:
        def example(self, record: dict[str, Any]) -> Any:
            return record["n"] if record["n"] % 2 == 0 else Reason("odd", f"{record['n']} is odd")

    table = pa.Table.from_pylist([{"n": n, "source": f"s{n}"} for n in range(10)])
    task: Any = Even()
    whole, few = Records(table, task), Records(table, task, FewShot(3, 1))
    assert [whole[i] for i in range(len(whole))] == [0, 2, 4, 6, 8]
    assert whole.column("source") == ["s0", "s2", "s4", "s6", "s8"]
    assert whole.left_out == {"odd": 5}
    assert len(few) == 3
    assert few.column("source") == [f"s{few[i]}" for i in range(3)]


def test_records_column_has_empty_texts_where_a_record_has_no_value() -> None:
    """A column that a source adds may have empty cells; a mixture sorts and names its values."""

    class Whole:
        def example(self, record: dict[str, Any]) -> Any:
            return record["text"]

    task: Any = Whole()
    records = Records(pa.table({"text": ["a", "b", "c"], "region": ["ege", None, "doğu"]}), task)
    assert records.column("region") == ["ege", "", "doğu"]
    members = groups(records, "region", ["ege", "doğu"], "ordering.shares")
    assert {name: rows.tolist() for name, rows in members.items()} == {"ege": [0], "doğu": [2]}
    with pytest.raises(UserError, match=r"names marmara; column 'region' holds , doğu, ege"):
        groups(records, "region", ["marmara"], "ordering.shares")
