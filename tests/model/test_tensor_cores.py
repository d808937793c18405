"""tensor_cores.py: padding changes no number."""

import torch

from pipeline.model.tensor_cores import padded_product


def test_padded_product_equals_the_plain_product_with_its_gradients() -> None:
    """Lost otherwise: on a GPU an id of the padding would get a share of the probability."""
    x, weight = torch.randn(2, 3, 8, requires_grad=True), torch.randn(61, 8, requires_grad=True)
    plain, padded = x @ weight.T, padded_product(x, weight)
    assert padded.shape == (2, 3, 61)
    torch.testing.assert_close(padded, plain)
    for one, other in zip(
        *(torch.autograd.grad(y.softmax(-1)[..., 0].sum(), (x, weight)) for y in (plain, padded)), strict=True
    ):
        torch.testing.assert_close(one, other)
