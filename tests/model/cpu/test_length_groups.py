"""Batches in two groups by length: fewer padded positions, the scores and gradients of one group."""

from pathlib import Path

import pytest
import torch

from pipeline.model import checkpoint
from pipeline.model.cpu import length_groups as groups
from tests.model.library_models import VOCABULARY, written


def _mask(lengths: list[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_length_groups_cut_where_fewest_positions_are_padded() -> None:
    (short, narrow), (long, wide) = groups.length_groups(_mask([3, 20, 4, 19, 2]))
    assert (sorted(short.tolist()), narrow) == ([0, 2, 4], 4)
    assert (sorted(long.tolist()), wide) == ([1, 3], 20)


def test_length_groups_stay_one_where_lengths_are_alike() -> None:
    for lengths in ([7], [9, 10, 10, 9], [10] * 8):
        ((rows, width),) = groups.length_groups(_mask(lengths))
        assert rows.tolist() == list(range(len(lengths)))
        assert width == max(lengths)


def test_grouped_classifier_has_the_scores_and_gradients_of_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost otherwise: a recipe on a CPU trains on scores of other rows, or on other gradients than on a GPU."""
    mask_BT = _mask([3, 16, 4, 15, 2])
    ids_BT = torch.randint(3, VOCABULARY, mask_BT.shape, generator=torch.Generator().manual_seed(1))
    for name in ("bert", "gemma"):
        model = checkpoint.load(written(name, tmp_path / name))
        model.add_score(3, torch.Generator().manual_seed(2))
        found = []
        for saved in (groups._LEAST_SAVED, 1.0):  # two groups, and one
            monkeypatch.setattr(groups, "_LEAST_SAVED", saved)
            assert len(groups.length_groups(mask_BT)) == (2 if saved < 1 else 1)
            model.zero_grad()
            scores_BC = model.eval().classify(ids_BT, mask_BT)
            scores_BC.square().mul(torch.arange(1.0, 6.0)[:, None]).sum().backward()
            found.append([scores_BC.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
            monkeypatch.undo()
        for two, one in zip(*found, strict=True):
            torch.testing.assert_close(two, one, atol=2e-6, rtol=1e-4)
