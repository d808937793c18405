"""Rotary position embeddings (Su et al. 2021), half-split as in transformers: feature i rotates with feature i + K/2.

The gradient of a rotation is the rotation back, written out here. Compared with autograd's composition of the same
steps it saves nothing of an update of the default base (`python -m tests.bench.cpu`: 105.0 ms, 104.4 without), but the
bits of every trained model depend on it.

Shapes: B batch, T tokens, N tokens of a flat batch, H heads, K head_dim.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pipeline.model.config import ModelConfig


def position_tables(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `rotate` of position ids: [B or 1, T] -> [B or 1, 1, T, K], [N] -> [N, 1, K]; float32."""
    with torch.autocast(positions.device.type, enabled=False):
        angles = positions[:, None, ..., None].float() * frequencies(config, positions.device)
        if config.family == "nanochat":
            angles = -angles  # it rotates the other way
        return tables(angles)


def frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians per position of each pair of features, [K / 2], as transformers computes them."""
    exponents = torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    plain = 1.0 / (config.rope_theta**exponents)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    turns = scaling.original_max_position_embeddings * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    # Slow rotations (below `low` turns in the original context) are slowed down by the factor, fast ones (above `high`)
    # kept, rotations in between are interpolated.
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * kept + plain / scaling.factor * (1 - kept)


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates every pair of features by its position's angle; cos and sin from `tables`, broadcast over the heads."""
    if torch.compiler.is_compiling():  # torch's compiler finds as good a gradient by itself
        return _rotated(x_BHTK, cos, sin)
    y_BHTK: Tensor = _Rotate.apply(x_BHTK, cos, sin)  # type: ignore[no-untyped-call]  # torch's
    return y_BHTK


def tables(angles: Tensor) -> tuple[Tensor, Tensor]:
    """[..., K/2] radians -> cosines [cos, cos] and sines [-sin, sin], each [..., K]."""
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    halves = torch.cat((b, a), dim=-1)
    if x.dtype == sin.dtype:
        return halves.mul_(sin).addcmul_(x, cos)
    return (halves * sin).addcmul_(x, cos).to(x.dtype)  # lower precision: rotated in that of the angles


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotate.apply(grad, cos, -sin), None, None  # type: ignore[no-untyped-call]  # torch's
