"""Label cells: one spelling for equal labels, so that equal records have equal ids and splits."""

import random

import pytest

from pipeline.data import label_cells


def test_several_cell_is_read_back_as_the_sorted_set() -> None:
    rng = random.Random(1)
    for _ in range(200):
        labels = ["".join(rng.choices('aşİ"[],\\ ', k=rng.randint(1, 5))) for _ in range(rng.randint(0, 4))]
        cell = label_cells.several_cell(labels)
        assert label_cells.several_in(cell) == sorted(set(labels))
        assert label_cells.several_cell(reversed(labels)) == cell


@pytest.mark.parametrize("cell", ["a", "[1]", '["a"', "[[]]", '{"a": 1}', "", "[" * 5000])
def test_several_in_is_none_for_other_texts(cell: str) -> None:
    assert label_cells.several_in(cell) is None
    assert label_cells.labels_of(cell) == (cell,)


def test_number_cell_is_read_back_as_the_same_number() -> None:
    rng = random.Random(2)
    numbers = [rng.choice((1.0, -1.0)) * 10 ** rng.uniform(-300, 300) for _ in range(200)] + [0.0, 3.0, 1e15, 0.1]
    assert [label_cells.number_in(label_cells.number_cell(number)) for number in numbers] == numbers
    assert label_cells.number_cell(3.0) == "3"


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "1_000", "3,5", "0x10"])
def test_number_in_is_none_for_other_texts(cell: str) -> None:
    assert label_cells.number_in(cell) is None
