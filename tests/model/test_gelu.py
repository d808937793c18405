"""GELU must be torch's GELU, value and gradient, however it is written: models are read again by other libraries."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.gelu import gelu


def wanted(x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope."""
    y = F.gelu(x, approximate="tanh")
    return y, torch.autograd.grad(y.sum(), x)[0]


@pytest.mark.parametrize("compiling", [False, True])
def test_it_is_the_gelu_of_torch(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong factor would train another network than is read again. Some roundings of float32: of a value of 8, of the
    square of 8 in the slope."""
    x = torch.linspace(-8, 8, 2001, requires_grad=True)
    value, slope = wanted(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    found = gelu(x)
    torch.testing.assert_close(found, value, atol=2e-6, rtol=0)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), x)[0], slope, atol=4e-6, rtol=0)


def test_what_needs_no_gradient_keeps_no_slope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr("pipeline.model.gelu._Gelu", None)
    x = torch.linspace(-8, 8, 2001)
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"), atol=2e-6, rtol=0)
    with torch.no_grad():
        gelu(x.requires_grad_())


def test_lower_precision_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded once, from the exact value: bfloat16 keeps 8 bits."""
    x = torch.linspace(-8, 8, 2001).bfloat16().requires_grad_()
    value, slope = wanted(x.detach().double().requires_grad_())
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = gelu(x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert found.dtype == gradient.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), value, atol=1e-6, rtol=2**-8)
    torch.testing.assert_close(gradient.double(), slope, atol=1e-6, rtol=2**-8)
