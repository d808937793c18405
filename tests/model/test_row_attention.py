"""Attention of a decoding step: calls of several rows give each row the bits of a call of its own."""

import pytest
import torch
from torch import Tensor

from pipeline.model import row_attention
from pipeline.model.cache import RowCache
from pipeline.model.row_attention import Piece, TokenAttention
from tests.models import shape

CAPACITY, SLOTS = 150, 24


def filled(**changes: int) -> tuple[RowCache, Tensor]:
    """A cache of random keys and values, and queries of 16 rows."""
    generator = torch.Generator().manual_seed(1)
    config = shape("qwen3", n_heads=4, n_kv_heads=2, head_dim=16, d_model=32, context_length=CAPACITY, **changes)
    cache = RowCache(config, torch.float32, torch.device("cpu"))
    cache.reserve(SLOTS, CAPACITY, {})
    cache.store.normal_(generator=generator)
    return cache, torch.randn(16, 4, 16, generator=generator)


# (slot, past) of every row: a group side by side, one with gaps, one out of order, rows of other lengths between them
ROWS = [(0, 30), (1, 30), (2, 30), (3, 99), (5, 30), (23, 30), (9, 99), (8, 99), (4, 0), (20, 130), (19, 130), (6, 1)]


def test_token_attention_gives_a_row_the_bits_of_a_call_of_its_own() -> None:
    cache, q_NHK = filled()
    config = shape("qwen3", n_heads=4, n_kv_heads=2, head_dim=16, d_model=32, context_length=CAPACITY)
    pieces = [Piece(slot, past, (7,)) for slot, past in ROWS]
    for layer in range(config.n_layers):
        together = TokenAttention(config, cache, pieces)(layer, q_NHK)
        assert together.shape == (16, 64)
        assert not together[len(ROWS) :].any()
        for number, piece in enumerate(pieces):
            alone = TokenAttention(config, cache, [piece])(layer, q_NHK[number : number + 1])
            assert torch.equal(together[number], alone[0])


def test_token_attention_ignores_slots_of_other_rows() -> None:
    """Between two rows of a call may lie one of another length, or none: its keys are arbitrary numbers."""
    cache, q_NHK = filled()
    config = shape("qwen3", n_heads=4, n_kv_heads=2, head_dim=16, d_model=32, context_length=CAPACITY)
    pieces = [Piece(slot, 30, (7,)) for slot in (1, 4)]
    before = TokenAttention(config, cache, pieces)(0, q_NHK)
    cache.store[:, :, 2:4] = torch.nan
    assert torch.equal(TokenAttention(config, cache, pieces)(0, q_NHK), before)


@pytest.mark.parametrize("rows", [ROWS, ROWS[::-1]])
def test_runs_are_rows_of_one_length_without_large_gaps(rows: list[tuple[int, int]]) -> None:
    runs = row_attention._runs([Piece(slot, past, (7,)) for slot, past in rows])
    assert [[rows[number] for number in run] for run in runs] == [
        [(4, 0)], [(6, 1)], [(0, 30), (1, 30), (2, 30), (5, 30)], [(23, 30)], [(3, 99), (8, 99), (9, 99)],
        [(19, 130), (20, 130)],
    ]  # fmt: skip
