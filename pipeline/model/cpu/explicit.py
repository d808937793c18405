"""Attention spelled out, for training in bfloat16 on a CPU: at short contexts torch's own kernel is slow backward.

The same sum as scaled_dot_product_attention, in blocks of queries, each beside the keys it may see. The weights are
kept for the gradient, H T^2 numbers a row, where torch makes them again. Scores and weights are rounded to bfloat16,
sums and softmax are float32, as in every network that trains without a fused kernel.

Heads of queries that share a head of keys become rows of one product: no key is copied for them.

Shapes: N rows times heads of keys (B, G), T positions, R heads of queries for one of keys (H = G R), K features of a
head, I positions of a block, J keys that it may see, X rows of queries: R heads within each of T or I positions.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Forward and backward by this and by torch's kernel, ms, with nothing beside it and with a busy neighbour: 48 heads of
# 32 at 64 positions 1.6 and 9.3, 1.7 and 6.3; heads of 64, 48 at 256 19.8 and 23.7, 19.8 and 22.2; 24 at 512 22.6 and
# 33.9, 27.3 and 31.4; 12 at 1,024 31.9 and 43.4, 41.9 and 44.4; 6 at 2,048 96.6 and 69.8 (busy): there torch's wins.
_MOST = 1024
# Queries of a block, about: in one piece 512 positions take 34.8, at 256 smaller blocks win nothing.
_LEAST = 256
_BLOCKS = 4


class Block(NamedTuple):
    """Queries from first to before last; they see no key from last on."""

    first: int
    last: int


def trains(T: int, device: torch.device) -> bool:
    """Whether passes over so many positions are now made on a CPU, in lower precision and for their gradients."""
    return T <= _MOST and device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()


def suits(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> bool:
    """Whether a pass is of the kind that this file is for."""
    alike = q.dtype == k.dtype == v.dtype == torch.bfloat16 and q.shape[-2] == k.shape[-2] <= _MOST
    return alike and q.device.type == "cpu" and torch.is_grad_enabled() and not dropout


@lru_cache(maxsize=4)  # rows of documents have another length in every batch
def causal(T: int, device: torch.device) -> Tensor:
    """[1, 1, T, T], added to scores: 0 where a token may look, else minus infinity.

    Compiled code reads this table faster than it works it out.
    """
    with torch.inference_mode(False):  # who asks first may not want gradients, the next one does
        return torch.full((1, 1, T, T), -torch.inf, dtype=torch.bfloat16, device=device).triu(1)


def attend(q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """softmax(q k / sqrt(K)) v, [B, H, T, K]; a mask as for scaled_dot_product_attention, [., 1 or H, T, T]."""
    B, H, T, K = q_BHTK.shape
    G, R = k_BGTK.shape[1], H // k_BGTK.shape[1]
    scaled_BGTRK = (q_BHTK * (1 / math.sqrt(K))).unflatten(1, (G, R)).transpose(2, 3)
    k_NTK, v_NTK = (x.reshape(B * G, T, K) for x in (k_BGTK, v_BGTK))
    may = causal(T, q_BHTK.device) if mask is None else mask
    # [., 1 or G, T, 1 or R, T]: as scores will stand
    may = may.unflatten(1, (G, R)).transpose(2, 3) if may.shape[1] == H else may.unsqueeze(3)
    # Where all is causal a block of queries sees nothing behind itself; a mask may show anything.
    blocks = _blocks(T) if is_causal else [Block(0, T)]
    rows = scaled_BGTRK.reshape(B * G, T * R, K)
    # torch declares no types for Function.apply
    out_NXK: Tensor = _Attend.apply(rows, k_NTK, v_NTK, may, blocks, G, R)  # type: ignore[no-untyped-call]
    return out_NXK.view(B, G, T, R, K).transpose(2, 3).flatten(1, 2)


def _blocks(T: int) -> list[Block]:
    """As alike as can be; how many is asked by comparing, so that a graph compiled for one T serves others."""
    n = 1 + len([i for i in range(1, _BLOCKS) if _LEAST * i < T])
    return [Block(T * i // n, T * (i + 1) // n) for i in range(n)]


def _weights(q_NXK: Tensor, k_NTK: Tensor, may: Tensor, block: Block, G: int, R: int) -> Tensor:
    """[N, IR, J]: what each query of a block gives to each key."""
    first, last = block
    scores_NXJ = torch.bmm(_queries(q_NXK, block, R), k_NTK[:, :last].mT)
    scores, rule = scores_NXJ.view(-1, G, last - first, R, last), may[:, :, first:last, :, :last]
    scores = scores.masked_fill(~rule, -torch.inf) if rule.dtype == torch.bool else scores + rule
    return scores.softmax(-1).to(q_NXK.dtype).view_as(scores_NXJ)


def _queries(x_NXK: Tensor, block: Block, R: int) -> Tensor:
    """[N, IR, K]: the block's rows of something that has a row for every query."""
    # Contiguous: torch's compiler would make it so, and forget that its strides follow the length.
    return x_NXK[:, block.first * R : block.last * R].contiguous()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, may: Tensor, blocks: list[Block], G: int, R: int) -> Tensor:
        weights = [_weights(q, k, may, block, G, R) for block in blocks]
        ctx.save_for_backward(q, k, v, may, *weights)
        ctx.blocks, ctx.G, ctx.R = blocks, G, R
        return torch.cat([torch.bmm(w, v[:, : block.last]) for w, block in zip(weights, blocks, strict=True)], 1)

    # torch declares any number of gradients, this has three
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, may, *weights = ctx.saved_tensors
        # Somebody differentiates this gradient again: it must know where weights came from. Compiled code has no second
        # gradient.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            weights = [_weights(q, k, may, block, ctx.G, ctx.R) for block in ctx.blocks]
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
