"""Examples of a recipe: few-shot draws and subsets."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.training.examples import FewShot, Subset


def drawn(records: list[dict[str, Any]], few: int, seed: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = FewShot(few, seed).draw(pa.Table.from_pylist(records)).to_pylist()
    return rows


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
