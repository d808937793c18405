"""Rotary positions (Su et al. 2021), half-split: feature i turns with feature i + K/2, as in transformers.

The gradient of turning is turning back. Written out it costs less than what torch composes of the same steps.
"""

from typing import Any

import torch
from torch import Tensor


def rotate(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns every feature pair by its position's angle; cos, sin: what `tables` gives, broadcast over the heads."""
    if torch.compiler.is_compiling():  # torch's compiler finds as good a gradient by itself
        return _turned(x_BHTK, cos, sin)
    # torch declares no types for Function.apply
    return _Rotate.apply(x_BHTK, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


def tables(angles: Tensor) -> tuple[Tensor, Tensor]:
    """[..., K/2] radians -> cosines [cos, cos] and sines [-sin, sin], each [..., K]."""
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    halves = torch.cat((b, a), dim=-1)
    if x.dtype == sin.dtype:
        return halves.mul_(sin).addcmul_(x, cos)
    return (halves * sin).addcmul_(x, cos).to(x.dtype)  # lower precision: turned in that of the angles


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    # torch declares any number of gradients, this has one; and no types for apply
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return _Rotate.apply(grad, cos, -sin), None, None  # type: ignore[no-untyped-call]
