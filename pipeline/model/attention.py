"""softmax(q k^T / sqrt(K)) v, by the kernel that fits the pass.

torch's own kernel is the default. Three cases use another: training in bfloat16 on a CPU (cpu/explicit.py), packed
documents in compiled blocks on a GPU (FlexAttention), and passes whose attention weights are recorded, which no fused
kernel gives.

Shapes: B rows, H query heads, G key-value heads, T queries, S keys, K head_dim.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.cpu import explicit
from pipeline.model.document_mask import flex
from pipeline.model.layout import AttentionInputs, causal_mask


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, inputs: AttentionInputs, dropout: float) -> Tensor:
    """The weighted sum of values for each query: [B, H, T, K].

    Args:
        q_BHTK: queries.
        k_BGSK: keys, past ones first; H / G query heads share each head (grouped queries, Ainslie et al. 2023).
        v_BGSK: their values.
        inputs: the mask.
        dropout: share of attention weights that are dropped.
    """
    if inputs.block_mask is None and explicit.suits(q_BHTK, k_BGSK, v_BGSK, dropout):
        return explicit.attend(q_BHTK, k_BGSK, v_BGSK, inputs.mask, inputs.is_causal)
    k_BHSK, v_BHSK = (repeat_heads(x, q_BHTK.shape[1]) for x in (k_BGSK, v_BGSK))
    if inputs.block_mask is not None:
        return flex(q_BHTK, k_BHSK, v_BHSK, inputs.block_mask)
    mask = None if inputs.is_causal else inputs.mask
    return F.scaled_dot_product_attention(q_BHTK, k_BHSK, v_BHSK, mask, dropout, inputs.is_causal)


def attend_with_weights(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, inputs: AttentionInputs, dropout: float
) -> tuple[Tensor, Tensor]:
    """As `attend`, written out, with the attention weights: ([B, H, T, K], [B, H, T, S])."""
    k_BHSK, v_BHSK = (repeat_heads(x, q_BHTK.shape[1]) for x in (k_BGSK, v_BGSK))
    scores_BHTS = q_BHTK @ k_BHSK.transpose(-2, -1) / math.sqrt(q_BHTK.shape[-1])
    mask = inputs.mask
    if inputs.is_causal:
        mask = causal_mask(q_BHTK.shape[2], k_BHSK.shape[2], q_BHTK.device)
    if mask is not None:
        scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores_BHTS + mask
    weights_BHTS = scores_BHTS.softmax(-1)
    return F.dropout(weights_BHTS, dropout) @ v_BHSK, weights_BHTS


def repeat_heads(x_BGSK: Tensor, n_heads: int) -> Tensor:
    """[B, G, S, K] -> [B, H, S, K]: each key-value head once for each query head that shares it."""
    G = x_BGSK.shape[1]
    return x_BGSK if n_heads == G else x_BGSK.repeat_interleave(n_heads // G, 1)
