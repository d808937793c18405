"""GELU and SwiGLU, their slopes worked out on the way where they are compiled for a CPU.

torch's compiler there keeps what went in and works out the sigmoid once more for the gradient. With what the gradient
is multiplied by kept instead, in no more memory where the projection behind it learns, an update of nanoGPT's 10.7 M
shape (tests/bench/nanogpt.py) takes 8 % less, one of Qwen3 with 0.8 M weights (tests/bench/shakespeare.py) 4 %.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_RATE, _CUBE = math.sqrt(8 / math.pi), 0.044715


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks & Gimpel 2016, section 2), [...] -> [...]."""
    if x.device.type != "cpu" or not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    if not _learns(x):
        y, share = _shared(x)
        return (y * share).to(x.dtype)
    # torch declares no types for Function.apply
    return _Gelu.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, equation 6), [...] and [...] -> [...]."""
    if gate.device.type != "cpu" or not torch.compiler.is_compiling() or not _learns(gate):
        return F.silu(gate) * up
    # torch declares no types for Function.apply
    return _SwiGLU.apply(gate, up)  # type: ignore[no-any-return, no-untyped-call]


def _learns(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad


def _shared(x: Tensor) -> tuple[Tensor, Tensor]:
    """x, exact enough, and what it is multiplied by: (1 + tanh z) / 2 = sigmoid(2 z), a third of a compiled tanh."""
    y = x.float()
    return y, torch.sigmoid(_RATE * y * (1 + _CUBE * y * y))


def _kept(*parts: Tensor, like: Tensor) -> Tensor:
    """In one tensor: what torch's compiler could work out again from what went in, it would."""
    return torch.stack([part.to(like.dtype) for part in parts])


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, share = _shared(x)
        slope = share + y * share * (1 - share) * _RATE * (1 + 3 * _CUBE * y * y)
        kept = _kept(y * share, slope, like=x)
        ctx.save_for_backward(kept)
        return kept[0]

    # torch declares any number of gradients, this has one
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (kept,) = ctx.saved_tensors
        return grad * kept[1]


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        x, y = gate.float(), up.float()
        share = torch.sigmoid(x)
        opened = x * share
        slope = (share + opened * (1 - share)) * y
        kept = _kept(opened * y, slope, opened, like=gate)
        ctx.save_for_backward(kept)
        return kept[0]

    # torch declares any number of gradients, this has two
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        (kept,) = ctx.saved_tensors
        return grad * kept[1], grad * kept[2]
