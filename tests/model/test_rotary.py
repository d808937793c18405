"""rotary.py: rotation of feature pairs, in every precision."""

import pytest
import torch

from pipeline.model.rotary import rotate, tables


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 0.02)]
)
def test_rotate_multiplies_pairs_as_complex_numbers(dtype: torch.dtype, tolerance: float) -> None:
    """As a complex number does: (a + ib) e^(i angle). bfloat16 keeps 8 bits of a number up to 4."""
    generator = torch.Generator().manual_seed(1)
    angles = torch.randn(5, 1, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(5, 3, 8, generator=generator, dtype=torch.float64).to(dtype)
    table = [part.to(torch.float64 if dtype == torch.float64 else torch.float32) for part in tables(angles)]
    turned = torch.complex(x[..., :4].double(), x[..., 4:].double()) * torch.polar(torch.ones_like(angles), angles)
    found = rotate(x, *table)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), torch.cat((turned.real, turned.imag), -1), atol=tolerance, rtol=0)


def test_rotate_has_first_and_second_derivatives() -> None:
    angles = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, *tables(angles)), (x,))
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, *tables(angles)), (x,))
