"""RMSNorm: the same numbers and gradients as torch's own, and gradients that can be differentiated again."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.model.cpu.norm import RMSNorm


def test_rmsnorm_equals_torch_with_its_gradients() -> None:
    """The hand-written gradient would train another model than the formula says."""
    generator = torch.Generator().manual_seed(0)
    norm = RMSNorm(24, eps=1e-3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0, generator=generator)
    # heads stand transposed in attention: the layout must not matter
    ours = torch.randn(2, 5, 3, 24, generator=generator).transpose(1, 2).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weight = norm.weight.detach().clone().requires_grad_()
    upstream = torch.randn(2, 3, 5, 24, generator=generator)
    (norm(ours) * upstream).sum().backward()
    expected = F.rms_norm(theirs, (24,), weight, 1e-3)
    (expected * upstream).sum().backward()
    torch.testing.assert_close(norm(ours), expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(norm.weight.grad, weight.grad)


def test_rmsnorm_has_second_derivatives() -> None:
    """Methods that learn weights of examples differentiate through an update; a silent zero would mislead them."""
    norm = RMSNorm(4, eps=1e-3).double()
    x = torch.randn(3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradgradcheck(norm, (x,))


def test_rmsnorm_without_a_scale_equals_torch() -> None:
    norm = RMSNorm(6, eps=1e-3, elementwise_affine=False).double()
    x = torch.randn(3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1), requires_grad=True)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (6,), None, 1e-3))
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradgradcheck(norm, (x,))


def test_rmsnorm_computes_bfloat16_in_float32_and_rounds_once() -> None:
    """What autocast leaves of queries and keys; torch's own path says a warning and takes many small steps."""
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).bfloat16().requires_grad_()
    norm = RMSNorm(6, eps=1e-3)
    found = norm(x)
    assert torch.equal(found, F.rms_norm(x.float(), (6,), norm.weight, 1e-3).bfloat16())
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


def test_rmsnorm_trains_bfloat16_weights() -> None:
    norm = RMSNorm(6, eps=1e-3).bfloat16()
    norm(torch.randn(3, 6, generator=torch.Generator().manual_seed(1)).bfloat16()).sum().backward()
    assert norm.weight.grad is not None
    assert norm.weight.grad.dtype == torch.bfloat16


def test_rmsnorm_mixes_precisions_in_one_kernel_off_the_cpu(recwarn: pytest.WarningsRecorder) -> None:
    """Shapes without numbers stand for a GPU, where torch would compose it of small steps, and say so."""
    x = torch.empty(2, 8, dtype=torch.bfloat16, device="meta")
    for scaled in (True, False):
        assert RMSNorm(8, eps=1e-6, elementwise_affine=scaled, device="meta")(x).dtype == torch.bfloat16
    assert not recwarn.list


def test_rmsnorm_returns_the_precision_of_its_input_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU torch 2.13's autocast makes norms float32; on a CPU it does not, so torch's own is replaced by one that
    does."""
    monkeypatch.setattr(torch.nn.RMSNorm, "forward", lambda _, x: x.float())
    x = torch.empty(2, 8, dtype=torch.bfloat16, device="meta")
    assert RMSNorm(8, elementwise_affine=False, device="meta")(x).dtype == torch.bfloat16
