"""Attention written out, for training in bfloat16 on a CPU, where the backward pass of torch's kernel is slow at short
contexts: 32 % of an update of the default base in bfloat16 (`python -m tests.bench.cpu`: 78.9 ms, 115.1 without).

The same formula as scaled_dot_product_attention, in blocks of queries, each with the keys it may attend to. Attention
weights are kept for the gradient, H T^2 numbers a row; torch's kernel computes them again. Scores and weights are
rounded to bfloat16, sums and softmax are float32, as in every network that trains without a fused kernel. Query heads
that share a key-value head become rows of one product, so no key is copied for them.

Shapes: N rows times key-value heads (B, G), T positions, R query heads per key-value head (H = G R), K head_dim, I
positions of a block, J keys it may attend to, X rows of queries: R heads within each of T or I positions.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The longest row for which it is faster. Forward and backward by this and by torch's kernel, ms, alone on the machine
# and with a busy neighbour: 48 heads of 32 at 64 positions 1.6 and 9.3, 1.7 and 6.3; heads of 64, 48 at 256 19.8 and
# 23.7, 19.8 and 22.2; 24 at 512 22.6 and 33.9, 27.3 and 31.4; 12 at 1,024 31.9 and 43.4, 41.9 and 44.4; 6 at 2,048 96.6
# and 69.8 (busy): there torch's wins.
_LONGEST = 1024
# Queries of a block, about: in one piece 512 positions take 34.8 ms, at 256 smaller blocks win nothing.
_BLOCK = 256
_MOST_BLOCKS = 4


class QueryBlock(NamedTuple):
    """Queries from `first` to before `last`; a causal mask hides every key from `last` on."""

    first: int
    last: int


def trains(T: int, device: torch.device) -> bool:
    """Whether a pass over T positions trains in lower precision on a CPU, at a length that suits."""
    return T <= _LONGEST and device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()


def suits(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> bool:
    """Whether `attend` is faster than torch's kernel for these queries, keys and values."""
    alike = q.dtype == k.dtype == v.dtype == torch.bfloat16 and q.shape[-2] == k.shape[-2] <= _LONGEST
    return alike and q.device.type == "cpu" and torch.is_grad_enabled() and not dropout


@lru_cache(maxsize=4)  # rows of documents have another length in every batch
def causal_bias(T: int, device: torch.device) -> Tensor:
    """[1, 1, T, T], added to scores: 0 where a token may attend, else minus infinity.

    Compiled code reads this table faster than it works it out.
    """
    with torch.inference_mode(False):  # the table outlives the pass that makes it, and a later one may train
        return torch.full((1, 1, T, T), -torch.inf, dtype=torch.bfloat16, device=device).triu(1)


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """softmax(q k / sqrt(K)) v, [B, H, T, K]; a mask as for scaled_dot_product_attention, [., 1 or H, T, T]."""
    B, H, T, K = q_BHTK.shape
    G, R = k_BGTK.shape[1], H // k_BGTK.shape[1]
    scaled_BGTRK = (q_BHTK * (1 / math.sqrt(K))).view(B, G, R, T, K).transpose(2, 3)
    k_NTK, v_NTK = (x.reshape(B * G, T, K) for x in (k_BGTK, v_BGTK))
    bias = causal_bias(T, q_BHTK.device) if mask is None else mask
    # [., 1 or G, T, 1 or R, T]: in the order of the scores
    bias = bias.view(bias.shape[0], G, R, *bias.shape[2:]).transpose(2, 3) if bias.shape[1] == H else bias.unsqueeze(3)
    # With a causal mask no query attends past its block, so those keys are left out; another mask may allow any.
    blocks = _blocks(T) if is_causal else [QueryBlock(0, T)]
    q_NXK = scaled_BGTRK.reshape(B * G, T * R, K)
    out_NXK: Tensor = _Attend.apply(q_NXK, k_NTK, v_NTK, bias, blocks, G, R)  # type: ignore[no-untyped-call]  # torch does not type Function.apply
    return out_NXK.view(B, G, T, R, K).transpose(2, 3).flatten(1, 2)


def _blocks(T: int) -> list[QueryBlock]:
    """Blocks of nearly equal length. Their number comes from comparisons, so that a graph compiled for one T serves
    others."""
    n = 1 + len([i for i in range(1, _MOST_BLOCKS) if _BLOCK * i < T])
    return [QueryBlock(T * i // n, T * (i + 1) // n) for i in range(n)]


def _weights(q_NXK: Tensor, k_NTK: Tensor, bias: Tensor, block: QueryBlock, heads: tuple[int, int]) -> Tensor:
    """Attention weights of a block's queries, [N, IR, J]; heads: (G, R)."""
    (first, last), (G, R) = block, heads
    scores_NXJ = torch.bmm(_queries(q_NXK, block, R), k_NTK[:, :last].mT)
    scores, bias = scores_NXJ.view(-1, G, last - first, R, last), bias[:, :, first:last, :, :last]
    scores = scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
    return scores.softmax(-1).to(q_NXK.dtype).view_as(scores_NXJ)


def _queries(x_NXK: Tensor, block: QueryBlock, R: int) -> Tensor:
    """The rows of a block's queries, [N, IR, K]."""
    # Contiguous: torch's compiler would make it so, but with strides that do not follow the length.
    return x_NXK[:, block.first * R : block.last * R].contiguous()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913 - torch calls it with tensors and plain numbers, not with a record of them
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, blocks: list[QueryBlock], G: int, R: int
    ) -> Tensor:
        weights = [_weights(q, k, bias, block, (G, R)) for block in blocks]
        ctx.save_for_backward(q, k, v, bias, *weights)
        ctx.blocks, ctx.G, ctx.R = blocks, G, R
        return torch.cat([torch.bmm(w, v[:, : block.last]) for w, block in zip(weights, blocks, strict=True)], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, *weights = ctx.saved_tensors
        # For a gradient of this gradient the graph must contain the computation of the weights from q and k. Compiled
        # code has none.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            weights = [_weights(q, k, bias, block, (ctx.G, ctx.R)) for block in ctx.blocks]
        grads_q = []
        grad_k, grad_v = (torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32)) for x in (k, v))
        for block, w in zip(ctx.blocks, weights, strict=True):
            grad_block, last = _queries(grad, block, ctx.R), block.last
            grad_w = torch.bmm(grad_block, v[:, :last].mT)
            grad_scores = torch._softmax_backward_data(grad_w, w, -1, w.dtype)
            grads_q.append(torch.bmm(grad_scores, k[:, :last]))
            grad_k[:, :last] += torch.bmm(grad_scores.mT, _queries(q, block, ctx.R))
            grad_v[:, :last] += torch.bmm(w.mT, grad_block)
        return torch.cat(grads_q, 1), grad_k.to(k.dtype), grad_v.to(v.dtype), None, None, None, None
