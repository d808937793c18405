"""A linear layer whose weight gradient takes two thirds of the time where bfloat16 training is compiled for a CPU.

That gradient is a product with a transposed left factor, for which oneDNN reaches 600 GFLOP/s, beside 1,300 for any
other product; here the factor is first copied in transposed order. An update of nanoGPT's 10.7 M shape takes 8 % less
(tests/bench/nanogpt.py). Projections that share an input are fused into one matmul.

Shapes: N tokens, I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor, nn

# Fewest inputs and outputs for which the copy pays. One core with AMX, ms without and with it: 384 to 1,536 (2,048
# tokens) 4.6 and 3.1, 384 to 384 1.08 and 0.90; of 768 tokens 1,024 to 256 1.19 and 0.93, 256 to 256 0.24 and 0.24, 128
# to 512 0.25 and 0.30.
_LEAST = 256


class Linear(nn.Linear):
    """nn.Linear, with its numbers and its weights' names."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        if not (torch.compiler.is_compiling() and suits(x, self.weight)):
            return super().forward(x)
        lower = torch.get_autocast_dtype("cpu")
        # torch declares no types for Function.apply
        out: Tensor = _Product.apply(x.to(lower), self.weight.to(lower))  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(lower)


def together(x: Tensor, *layers: nn.Module) -> list[Tensor]:
    """What each layer makes of x, [..., I] -> [..., O] for each.

    Where bfloat16 is compiled to train on a CPU plain layers are one product, their weights below each other, with one
    gradient of x instead of a sum: an update of Qwen3 with 0.8 M weights (tests/bench/shakespeare.py) takes 2 % less.
    """
    weights = [layer.weight for layer in layers if isinstance(layer, Linear) and _is_plain(layer)]
    alike = len(weights) == len(layers) and all(learns(x, weight) for weight in weights)
    if not (torch.compiler.is_compiling() and alike):
        return [layer(x) for layer in layers]
    lower = torch.get_autocast_dtype("cpu")
    weight_OI = torch.cat([weight.to(lower) for weight in weights])
    # torch declares no types for Function.apply
    product = _Product.apply if suits(x, weight_OI) else nn.functional.linear
    out: Tensor = product(x.to(lower), weight_OI)  # type: ignore[no-untyped-call]
    return list(out.split([len(weight) for weight in weights], -1))


def _is_plain(layer: Linear) -> bool:
    """Whether it is its weight, and nobody would miss that it is called."""
    return type(layer) is Linear and layer.bias is None and not layer._forward_hooks and not layer._forward_pre_hooks


def suits(x: Tensor, weight_OI: Tensor) -> bool:
    """Whether this product is of a weight that learns, and large enough for a gradient by a copy."""
    return learns(x, weight_OI) and min(weight_OI.shape) >= _LEAST and weight_OI.shape[0] % 2 == 0


def learns(x: Tensor, weight_OI: Tensor) -> bool:
    """Whether this product is made on a CPU, in lower precision, for a weight that learns."""
    lowered = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return lowered and torch.is_grad_enabled() and weight_OI.requires_grad


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return x @ weight_OI.mT

    # torch declares any number of gradients, this has two
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight_OI = ctx.saved_tensors
        return grad @ weight_OI, _turned(grad.flatten(0, -2)) @ x.flatten(0, -2)


def _turned(grad_NO: Tensor) -> Tensor:
    """[O, N], copied."""
    # Seen in another shape in between, because torch's compiler copies a plain transpose in the order that it had.
    return grad_NO.mT.unflatten(0, (2, -1)).contiguous().flatten(0, 1)
