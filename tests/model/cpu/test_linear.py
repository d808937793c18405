"""cpu/linear.py: the weight gradient by a transposed copy, and where it is used."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.model.cpu import linear
from pipeline.model.cpu.linear import Linear, suits


@pytest.fixture(autouse=True)
def compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch's compiler read the code."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def made(inputs: int, outputs: int, bias: bool = False) -> tuple[Linear, Tensor]:
    """A layer and two rows of three tokens."""
    generator = torch.Generator().manual_seed(1)
    layer = Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=generator)
    return layer, torch.randn(2, 3, inputs, generator=generator).requires_grad_()


def gradients(layer: nn.Linear, x: Tensor) -> list[Tensor]:
    """Output, and gradients of input and parameters."""
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("bias", [False, True])
def test_linear_equals_torch_linear_but_for_rounding(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum with the bias is rounded to bfloat16's 8 bits."""
    layer, x = made(256, 258, bias)
    taken = []
    product = linear._Product.apply
    monkeypatch.setattr(linear._Product, "apply", lambda *given: (taken.append(given), product(*given))[1])
    mine = gradients(layer, x)
    assert len(taken) == 1
    plain = nn.Linear(256, 258, bias=bias)
    plain.load_state_dict(layer.state_dict())
    for found, wanted in zip(mine, gradients(plain, x), strict=True):
        assert found.dtype == wanted.dtype
        assert float((found - wanted).float().norm() / wanted.float().norm()) < 2**-8


def test_suits_is_true_for_large_trained_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = made(256, 256)
    assert not suits(x, layer.weight)  # float32
    with torch.autocast("cpu", torch.bfloat16):
        assert suits(x, layer.weight)
        assert not suits(x, made(255, 256)[0].weight)
        assert not suits(x, made(256, 257)[0].weight)  # rows that do not halve
        with torch.no_grad():
            assert not suits(x, layer.weight)
        assert not suits(x, layer.weight.detach())  # frozen, as beside LoRA
        monkeypatch.setattr(linear, "_Product", None)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: False)
        layer(x)
