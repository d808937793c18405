"""A product whose gradient is made another way must have the same gradient, and be taken only where it pays."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.model.cpu import linear
from pipeline.model.cpu.linear import Linear, suits, together


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
def test_it_is_the_product_of_torch(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the rounding of a sum with the bias, bfloat16's 8 bits."""
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


def test_it_is_taken_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize("inputs", [32, 256])
def test_layers_together_are_the_layers_alone(inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one product, at either size of its gradient, but for rounding: of x the sum is rounded once, not twice."""
    layers = nn.ModuleList([made(inputs, outputs)[0] for outputs in (32, 226)])
    x, products = made(inputs, 1)[1], []
    for name, function in (("_Product", linear._Product.apply), ("linear", nn.functional.linear)):
        where, called = (linear._Product, "apply") if name == "_Product" else (nn.functional, "linear")
        monkeypatch.setattr(where, called, lambda *given, f=function: (products.append(given), f(*given))[1])

    def found(one: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            outs = together(x, *layers) if one else [layer(x) for layer in layers]
        assert [out.shape for out in outs] == [(2, 3, 32), (2, 3, 226)]
        # Parts that pull apart: a gradient that lands on the other's weight is seen.
        loss = outs[0].float().square().sum() - 2 * outs[1].float().square().sum()
        return [*(out.detach() for out in outs), *torch.autograd.grad(loss, [x, *layers.parameters()])]

    mine = found(one=True)
    assert len(products) == 1
    for one, alone in zip(mine, found(one=False), strict=True):
        assert one.dtype == alone.dtype
        assert float((one - alone).float().norm() / alone.float().norm()) < 2**-8


@pytest.mark.parametrize(
    "why", ["adapted", "frozen", "biased", "hooked", "watched", "eager", "float32", "not learning"]
)
def test_layers_are_asked_one_by_one(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one is more than its weight, or the gain was not measured."""
    layer, x = made(8, 8)
    other: nn.Module = made(8, 8, bias=why == "biased")[0]
    if why == "adapted":
        other = nn.Sequential(other)
    other.requires_grad_(why != "frozen")
    seen = []
    if why == "hooked":
        other.register_forward_hook(lambda *given: seen.append(given))
    if why == "watched":
        other.register_forward_pre_hook(lambda *given: seen.append(given))
    if why == "eager":
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: False)
    monkeypatch.setattr(torch, "cat", None)
    with torch.autocast("cpu", torch.bfloat16, enabled=why != "float32"), torch.set_grad_enabled(why != "not learning"):
        outs = together(x, layer, other)
        assert all(torch.equal(out, one(x)) for out, one in zip(outs, (layer, other), strict=True))
    assert len(seen) == (2 if why in ("hooked", "watched") else 0)
