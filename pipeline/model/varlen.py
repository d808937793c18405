"""Texts of different lengths without their padding: the stream is one list of tokens, in rows only where they meet.

Norms, projections and the MLP work on the list; attention sees the rows, where padding on the right costs little and
causality keeps it unseen, so no mask is needed. What no wanted position sees is left out from the start, and the last
block computes the wanted positions alone. Packing several texts into one row (packed.py) never saves more: it fills
rows less well, and its attention pays for a mask.

Shapes: B rows, T positions of a row, S slots of all rows, N tokens, ... features.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Places:
    """Which of S slots hold a token, and the way there and back. At least one must."""

    def __init__(self, taken_S: Tensor) -> None:
        self.slot_N = taken_S.nonzero()[:, 0]
        # the number of each slot's token; N where there is none
        self.token_S = torch.where(taken_S, taken_S.cumsum(0) - 1, len(self.slot_N))
        self._filled_S = self.token_S.clamp(max=len(self.slot_N) - 1)

    # torch declares no types for Function.apply
    def gather(self, x_S: Tensor) -> Tensor:
        """[S, ...] -> [N, ...]."""
        return _Gather.apply(x_S, self.slot_N, self.token_S)  # type: ignore[no-any-return, no-untyped-call]

    # torch declares no types for Function.apply
    def spread(self, x_N: Tensor) -> Tensor:
        """[N, ...] -> [S, ...]. What stands in an empty slot is some token's: nobody may read it."""
        return _Spread.apply(x_N, self.slot_N, self._filled_S)  # type: ignore[no-any-return, no-untyped-call]


class Rows(Places):
    """Places that are the positions of rows."""

    def __init__(self, taken_BT: Tensor) -> None:
        super().__init__(taken_BT.flatten())
        self.shape = taken_BT.shape

    def heads(self, *x_NHK: Tensor) -> list[Tensor]:
        """[N, H, K] -> [B, H, T, K] each."""
        return [self.spread(x).unflatten(0, self.shape).transpose(1, 2) for x in x_NHK]


class Unpadded(NamedTuple):
    """Where the tokens of one batch stand."""

    tokens: Rows
    """All that some wanted position sees."""
    wanted: Rows
    """The wanted ones, each row of them moved to the left."""
    asking: Places
    """The wanted ones among the tokens."""
    mask: Tensor
    """What each wanted one sees of its row: [B, 1, Q, T], for Q slots in a row of `wanted`."""


def unpadded(wanted_BT: Tensor) -> Unpadded | None:
    """Where tokens stand when only these positions (boolean) are read; None where none is."""
    T = wanted_BT.shape[1]
    index_T = torch.arange(T, device=wanted_BT.device)
    seen_BT = wanted_BT.flip(1).cumsum(1).flip(1) > 0  # what stands behind a row's last wanted one is seen by none
    count_B = wanted_BT.sum(1)
    most = int(count_B.max())
    if not most:
        return None
    wanted = Rows(index_T[:most] < count_B[:, None])
    at_BQ = wanted.spread(wanted_BT.nonzero()[:, 1]).unflatten(0, wanted.shape)
    mask_BQT = index_T <= at_BQ[..., None]
    return Unpadded(Rows(seen_BT), wanted, Places(wanted_BT[seen_BT]), mask_BQT[:, None])


# Both read by index and so do their gradients: on a CPU that takes a quarter of the time of writing by index, which is
# torch's own gradient of reading.
class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_S: Tensor, slot_N: Tensor, token_S: Tensor) -> Tensor:
        ctx.save_for_backward(token_S)
        return x_S.index_select(0, slot_N)

    # torch declares any number of gradients, this has one
    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (token_S,) = ctx.saved_tensors
        nothing = grad_N.new_zeros(1, *grad_N.shape[1:])
        return torch.cat((grad_N, nothing)).index_select(0, token_S), None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_N: Tensor, slot_N: Tensor, filled_S: Tensor) -> Tensor:
        ctx.save_for_backward(slot_N)
        return x_N.index_select(0, filled_S)

    # what nobody reads has no gradient; torch declares any number of them, this has one
    @staticmethod
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (slot_N,) = ctx.saved_tensors
        return grad_S.index_select(0, slot_N), None, None
