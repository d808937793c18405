"""Shapes that suit a GPU's tensor cores."""

from torch import Tensor
from torch.nn import functional as F


def padded_product(x: Tensor, weight_VD: Tensor, multiple: int = 128) -> Tensor:
    """x W^T, [..., D] -> [..., V], computed with W padded by rows of zeros to a multiple of 128.

    Tensor cores are slow at odd sizes, and GPT-2's vocabulary has 50,257 ids. The padding is in no checkpoint.
    """
    V = weight_VD.shape[0]
    return F.linear(x, F.pad(weight_VD, (0, 0, 0, -V % multiple)))[..., :V]
