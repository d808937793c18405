"""Document masks for packed windows: a token attends only to earlier tokens of its own document.

Three equivalent implementations. Rows: in attention every document is a row of its own, so attention costs the sum of
the documents' squares, not the window's square; used on a CPU. A mask: where rows would hold mostly padding, or where
shapes must not change (compiled blocks). A block mask: FlexAttention skips blocks that are masked out (Dong et al.
2024); used for compiled blocks on a GPU.

Shapes: B windows, T positions, N = B T tokens, R documents, M blocks of 128 positions.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pipeline.model.varlen import PaddedRows

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

# Largest share of the window's attention scores for which rows are used. Rows cost their padding and two copies, a mask
# a slower attention. At a window of 256 and documents of 130 tokens (a share of 1.05) a mask makes an update 5 %
# faster, at 512 (0.51) rows 6 %, at 1,024 (0.26) rows 32 %.
_LARGEST_SHARE = 0.75

_FLEX_DEVICE = "cuda"  # where FlexAttention is compiled to skip blocks
_BLOCK = 128  # positions of a block of FlexAttention
_LEAST_HEAD_DIM = 16  # torch's compiler has no such kernel for narrower heads


class Packed(NamedTuple):
    """Position ids and the document mask in one of its three forms; in none where each window holds one document."""

    positions: Tensor
    """From 0 in each document: [B, T], with rows [N]."""
    rows: PaddedRows | None = None
    """A row per document."""
    mask: Tensor | None = None
    """[B, 1, T, T]."""
    block_mask: "BlockMask | None" = None


def flex_fits(head_dim: int, device: torch.device) -> bool:
    """Whether compiled blocks may use FlexAttention here."""
    return device.type == _FLEX_DEVICE and head_dim >= _LEAST_HEAD_DIM


def packed(segments_BT: Tensor, use_rows: bool, use_flex: bool) -> Packed:
    """The document mask of packed windows, in the cheapest form that is allowed.

    Args:
        segments_BT: a number per token that differs between neighbouring documents of a window.
        use_rows: shapes may change from batch to batch, and no values of whole windows are recorded.
        use_flex: a block mask is possible (`flex_fits`, no dropout of attention weights).
    """
    B, T = segments_BT.shape
    positions_BT = positions(segments_BT)
    if use_rows:
        starts_N = (positions_BT == 0).flatten()
        lengths_R = torch.diff(starts_N.nonzero()[:, 0], append=starts_N.new_full((1,), B * T, dtype=torch.long))
        if len(lengths_R) == B:
            return Packed(positions_BT)
        longest = int(lengths_R.max())
        if len(lengths_R) * longest**2 <= _LARGEST_SHARE * B * T**2:
            filled_RL = torch.arange(longest, device=segments_BT.device) < lengths_R[:, None]
            return Packed(positions_BT.flatten(), rows=PaddedRows(filled_RL))
    if use_flex:
        return Packed(positions_BT, block_mask=block_mask(positions_BT))
    return Packed(positions_BT, mask=mask(positions_BT))


def positions(segments_BT: Tensor) -> Tensor:
    """Position ids [B, T]: the number of earlier tokens of the same document in the window."""
    index_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
    starts_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    starts_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    return index_T - torch.where(starts_BT, index_T, 0).cummax(dim=1).values


def mask(positions_BT: Tensor) -> Tensor:
    """[B, 1, T, T], true where a token may attend: its own document's past and itself."""
    first_BT = _first(positions_BT)
    return (first_BT[:, :, None] == first_BT[:, None, :]).tril()[:, None]


def block_mask(positions_BT: Tensor) -> "BlockMask":
    """The same mask for FlexAttention.

    Worked out from the first and last position of each block; torch's create_block_mask evaluates the rule at every
    pair of positions, B T^2 numbers several times over.
    """
    from torch.nn.attention.flex_attention import BlockMask  # imports torch's compiler

    first_BT = _first(positions_BT)

    def may_attend(b: Tensor, _head: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (first_BT[b, q] <= kv) & (kv <= q)

    T = positions_BT.shape[1]
    begins_M = torch.arange(0, T, _BLOCK, device=positions_BT.device)
    ends_M = (begins_M + _BLOCK).clamp(max=T) - 1
    # A document's start never moves back along a window: a block of keys is needed if the block's first query may see
    # its end, and needs no mask if the block's last query may see its beginning.
    past_MM = begins_M < begins_M[:, None]
    some_BMM = (first_BT[:, begins_M, None] <= ends_M) & (past_MM | torch.eye(len(ends_M), device=ends_M.device).bool())
    full_M1 = (ends_M - begins_M == _BLOCK - 1)[:, None]
    all_BMM = (first_BT[:, ends_M, None] <= begins_M) & past_MM & full_M1
    return BlockMask.from_kv_blocks(
        *_listed(some_BMM & ~all_BMM), *_listed(all_BMM), _BLOCK, mask_mod=may_attend, seq_lengths=(T, T)
    )


def _first(positions_BT: Tensor) -> Tensor:
    """[B, T]: the position in the window at which each token's document begins."""
    return torch.arange(positions_BT.shape[1], device=positions_BT.device) - positions_BT


def _listed(wanted_BMM: Tensor) -> tuple[Tensor, Tensor]:
    """FlexAttention's sparse form: the number of key blocks of each query block, [B, 1, M], and all key blocks with
    these first, [B, 1, M, M]."""
    wanted = wanted_BMM[:, None].int()
    return wanted.sum(-1, dtype=torch.int32), wanted.argsort(dim=-1, descending=True, stable=True).int()


def flex(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, blocks: "BlockMask") -> Tensor:
    """softmax(q k^T / sqrt(K)) v under a block mask: [B, H, T, K]."""
    from torch.nn.attention.flex_attention import flex_attention

    out = flex_attention(q_BHTK, k_BHTK, v_BHTK, block_mask=blocks)
    assert isinstance(out, Tensor)
    return out
