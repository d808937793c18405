"""Activations must be torch's, value and gradient, however they are written: models are read again by others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.cpu import activations

Activation = Callable[..., Tensor]


def ours_gelu(x: Tensor, _: Tensor) -> Tensor:
    return activations.gelu(x)


def their_gelu(x: Tensor, _: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def their_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


PAIRS = [(ours_gelu, their_gelu), (activations.swiglu, their_swiglu)]
# Some roundings of float32: of a value of 8 and of the square of 8 in a slope; of 8 times 8.
ROUNDING = {ours_gelu: 4e-6, activations.swiglu: 2e-5}


def given(dtype: torch.dtype) -> list[Tensor]:
    """From -8 to 8, and the other way round."""
    x = torch.linspace(-8, 8, 2001).to(dtype)
    return [x.clone().requires_grad_(), x.flip(0).requires_grad_()]


def answers(activation: Activation, inputs: list[Tensor]) -> list[Tensor]:
    """Value, and slope in every input that it reads."""
    value = activation(*inputs)
    slopes = torch.autograd.grad(value.sum(), inputs, allow_unused=True)
    return [value.detach(), *(slope for slope in slopes if slope is not None)]


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
@pytest.mark.parametrize("compiling", [False, True])
def test_activation_equals_torch_with_its_gradient(
    mine: Activation, theirs: Activation, compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong factor would train another network than is read again."""
    wanted = answers(theirs, given(torch.float32))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    found = answers(mine, given(torch.float32))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=ROUNDING[mine], rtol=0)


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_activation_rounds_bfloat16_once(mine: Activation, theirs: Activation, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 keeps 8 bits."""
    inputs = given(torch.bfloat16)
    wanted = answers(theirs, [x.detach().double().requires_grad_() for x in inputs])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for one, other in zip(answers(mine, inputs), wanted, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=2**-8)


@pytest.mark.parametrize(("mine", "theirs"), PAIRS)
def test_activation_keeps_no_derivative_without_gradient(
    mine: Activation, theirs: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for name in ("_Gelu", "_SwiGLU"):
        monkeypatch.setattr(activations, name, None)
    inputs = given(torch.float32)
    frozen = [x.detach() for x in inputs]
    torch.testing.assert_close(mine(*frozen), theirs(*frozen), atol=ROUNDING[mine], rtol=0)
    with torch.no_grad():
        mine(*inputs)
