"""A linear layer whose weight gradient takes two thirds of the time where bfloat16 training is compiled for a CPU.

That gradient is a product with a transposed left factor, for which oneDNN reaches 600 GFLOP/s, beside 1,300 for any
other product; here the factor is first copied in transposed order. An update of nanoGPT's 10.7 M shape takes 8 % less
(tests/bench/nanogpt.py).

Shapes: N tokens, I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

# Fewest inputs and outputs for which the copy pays. One core with AMX, ms without and with it: 384 to 1,536 (2,048
# tokens) 4.6 and 3.1, 384 to 384 1.08 and 0.90; of 768 tokens 1,024 to 256 1.19 and 0.93, 256 to 256 0.24 and 0.24, 128
# to 512 0.25 and 0.30.
_LEAST_WIDTH = 256


class Linear(nn.Linear):
    """nn.Linear: the same formula, parameters and names."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        if not (torch.compiler.is_compiling() and suits(x, self.weight)):
            return super().forward(x)
        lower = torch.get_autocast_dtype("cpu")
        y: Tensor = _Product.apply(x.to(lower), self.weight.to(lower))  # type: ignore[no-untyped-call]  # torch's
        return y if self.bias is None else y + self.bias.to(lower)


def suits(x: Tensor, weight_OI: Tensor) -> bool:
    """Whether the product is made on a CPU in lower precision, for a weight that is trained and large enough."""
    lowered = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    trained = torch.is_grad_enabled() and weight_OI.requires_grad
    return lowered and trained and min(weight_OI.shape) >= _LEAST_WIDTH and weight_OI.shape[0] % 2 == 0


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return x @ weight_OI.mT

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight_OI = ctx.saved_tensors
        return grad @ weight_OI, _transposed_copy(grad.flatten(0, -2)) @ x.flatten(0, -2)


def _transposed_copy(grad_NO: Tensor) -> Tensor:
    """[N, O] -> [O, N], contiguous."""
    # By way of another shape, because torch's compiler copies a plain transpose in the order that it had.
    return grad_NO.mT.view(2, -1, grad_NO.shape[0]).contiguous().flatten(0, 1)
