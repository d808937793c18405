"""Nearest neighbours on embeddings: a wrong vote would make this row of a comparison worthless."""

import pytest
import torch

from pipeline.studies import neighbours


def test_voted_takes_the_label_with_the_largest_sum_of_similarities() -> None:
    known_MD = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.5, 0.9], [-1.0, 0.0]]))
    labels = ["ham", "spam", "spam", "ham"]
    query_1D = torch.tensor([[1.0, 0.0]])
    assert neighbours.voted(query_1D, known_MD, labels, 1) == ["ham"]
    assert neighbours.voted(query_1D, known_MD, labels, 3) == ["spam"]  # 0.60 + 0.49 beside 1.00
    assert neighbours.voted(query_1D, known_MD, labels, 99) == ["spam"]  # an opposite text has no vote


def test_nearest_gives_the_most_similar_first() -> None:
    known_MD = torch.eye(3)
    similarities, rows = neighbours.nearest(torch.tensor([[0.6, 0.8, 0.0]]), known_MD, 2)
    assert rows.tolist() == [[1, 0]]
    assert similarities[0].tolist() == pytest.approx([0.8, 0.6])
