"""RMSNorm with its gradient in closed form: y = x / sqrt(mean(x^2) + epsilon) * w (Zhang & Sennrich 2019, equation 4).

nn.RMSNorm's parameters and names. When it was written its gradient took half the time of torch's; with torch 2.13 it
saves nothing of an update of the default base (`python -m tests.bench.cpu`: 106.0 ms with it, 105.8 without), and stays
because the bits of every trained model depend on it. On other devices torch's own kernel runs, which in torch 2.11
needs x and w of one precision: under autocast queries have another. The result has x's precision everywhere.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.RMSNorm):
    """nn.RMSNorm over the last dimension, with or without a scale."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        if x.device.type != "cpu" and (self.weight is None or self.weight.dtype == x.dtype):
            return super().forward(x).to(x.dtype)
        exact = x if x.dtype == torch.float64 else x.float()
        weight = None if self.weight is None else self.weight.to(exact.dtype)
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.rms_norm(exact, self.normalized_shape, weight, self.eps).to(x.dtype)
        y: Tensor = _RMSNorm.apply(exact, weight, self.eps)  # type: ignore[no-untyped-call]  # torch does not type Function.apply
        return y.to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
        normed = x * scale
        ctx.save_for_backward(x, weight, normed, scale)
        ctx.epsilon = epsilon
        return normed if weight is None else normed * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, normed, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a gradient of this gradient the graph must know how these came from x
            scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + ctx.epsilon)
            normed = x * scale
        along = grad * normed
        # dL/dx = (w g - n mean(w g n)) * scale with n = normed
        if weight is None:
            return torch.addcmul(grad, normed, along.mean(-1, keepdim=True), value=-1) * scale, None, None
        mean = (along @ weight)[..., None] / weight.numel()
        grad_weight = along.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():
            return torch.addcmul(grad * weight, normed, mean, value=-1) * scale, grad_weight, None
        grad_x = torch.mul(grad, weight, out=along).addcmul_(normed, mean, value=-1).mul_(scale)
        return grad_x, grad_weight, None
