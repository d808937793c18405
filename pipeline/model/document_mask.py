"""Documents that share a window, kept apart: a token sees the past of its own document alone.

Three ways to the same numbers. As rows: every document is a row of its own where tokens meet, and attention costs the
squares of the documents, not that of the window; the way of a CPU. As a mask: what is left where rows would hold mostly
padding, or where shapes must not change (compiled blocks). As a block mask: FlexAttention skips what no token sees
(Dong et al. 2024); the way of compiled blocks on a GPU.

Shapes: B windows, T positions, N = B T tokens, R documents, M blocks of 128 positions.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.model.varlen import Rows

# Rows cost their padding and the way into rows and back, a mask the slower attention under it. At a window of 256 and
# documents of 130 (the share is 1.05) a mask is 5 % of an update faster, at 512 (0.51) rows 6 %, at 1,024 (0.26) 32 %.
_WORTH = 0.75

_FLEXES = "cuda"  # where FlexAttention is compiled to skip blocks
_SIDE = 128  # of a block of FlexAttention, positions
_LEAST = 16  # features of a head: of fewer torch's compiler writes no such kernel


class Packed(NamedTuple):
    """How the documents of a batch are kept apart; none of the three is set where each window holds one alone."""

    positions: Tensor
    """From 0 in each document: [B, T], as rows [N]."""
    rows: Rows | None = None
    mask: Tensor | None = None
    """[B, 1, T, T]."""
    blocks: Any = None
    """A BlockMask."""


def packed(segments_BT: Tensor, fixed: bool, shown: bool, dropout: bool, head_dim: int) -> Packed:
    """Chooses the way.

    Args:
        segments_BT: a number per token that differs between neighbouring documents of a window.
        fixed: shapes must not change from batch to batch.
        shown: somebody looks at hidden states or attention of whole windows.
        dropout: attention weights are dropped, which FlexAttention cannot.
        head_dim: features of a head; FlexAttention wants 16.
    """
    B, T = segments_BT.shape
    positions_BT = positions(segments_BT)
    if not fixed and not shown:
        starts_N = (positions_BT == 0).flatten()
        lengths_R = torch.diff(starts_N.nonzero()[:, 0], append=starts_N.new_full((1,), B * T, dtype=torch.long))
        if len(lengths_R) == B:
            return Packed(positions_BT)
        longest = int(lengths_R.max())
        if len(lengths_R) * longest**2 <= _WORTH * B * T**2:
            taken_RL = torch.arange(longest, device=segments_BT.device) < lengths_R[:, None]
            return Packed(positions_BT.flatten(), rows=Rows(taken_RL))
    if fixed and not shown and not dropout and head_dim >= _LEAST and segments_BT.device.type == _FLEXES:
        return Packed(positions_BT, blocks=block_mask(positions_BT))
    return Packed(positions_BT, mask=mask(positions_BT))


def positions(segments_BT: Tensor) -> Tensor:
    """[B, T]: how many tokens of the same document stand before each in its window."""
    index_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    starts_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    starts_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return index_T - torch.where(starts_BT, index_T, 0).cummax(dim=1).values


def mask(positions_BT: Tensor) -> Tensor:
    """[B, 1, T, T], true where a token may look: its own document's past and itself."""
    first_BT = _first(positions_BT)
    return (first_BT[:, :, None] == first_BT[:, None, :]).tril()[:, None]


def block_mask(positions_BT: Tensor) -> Any:
    """The same rule for `attend_blocks`, by the ends of blocks: torch's create_block_mask asks it of every pair of
    positions, B T^2 numbers several times over."""
    from torch.nn.attention.flex_attention import BlockMask  # imports torch's compiler

    first_BT = _first(positions_BT)

    def may_look(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (first_BT[b, q] <= kv) & (kv <= q)

    T = positions_BT.shape[1]
    begins_M = torch.arange(0, T, _SIDE, device=positions_BT.device)
    ends_M = (begins_M + _SIDE).clamp(max=T) - 1
    # what a block's queries may see begins no earlier than for its first, for all of them where it does for its last
    past_MM = begins_M < begins_M[:, None]
    some_BMM = (first_BT[:, begins_M, None] <= ends_M) & (past_MM | torch.eye(len(ends_M), device=ends_M.device).bool())
    full_M1 = (ends_M - begins_M == _SIDE - 1)[:, None]
    all_BMM = (first_BT[:, ends_M, None] <= begins_M) & past_MM & full_M1
    return BlockMask.from_kv_blocks(
        *_listed(some_BMM & ~all_BMM), *_listed(all_BMM), _SIDE, mask_mod=may_look, seq_lengths=(T, T)
    )


def _first(positions_BT: Tensor) -> Tensor:
    """[B, T]: where each token's document begins in its window; never falls along it."""
    return torch.arange(positions_BT.shape[1], device=positions_BT.device) - positions_BT


def _listed(wanted_BMM: Tensor) -> tuple[Tensor, Tensor]:
    """As FlexAttention reads it: how many blocks of keys each block of queries wants, [B, 1, M], and which come first
    of all, [B, 1, M, M]."""
    wanted = wanted_BMM[:, None].int()
    return wanted.sum(-1, dtype=torch.int32), wanted.argsort(dim=-1, descending=True, stable=True).int()


def attend_blocks(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, blocks: Any) -> Tensor:
    """softmax(q k / sqrt(K)) v where the blocks say so: [B, H, T, K]."""
    from torch.nn.attention.flex_attention import flex_attention

    out = flex_attention(q_BHTK, k_BHTK, v_BHTK, block_mask=blocks)
    assert isinstance(out, Tensor)
    return out
