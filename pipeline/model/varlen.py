"""Padding-free batches: activations are [N, D]; padded rows exist only inside attention.

Norms, projections and the MLP work on the flat list of tokens. Attention works on rows, where padding on the right
costs little and the causal mask already hides it. Tokens on which no wanted position depends are left out from the
start, and the last block computes only the wanted positions. Packing several texts into one row (document_mask.py)
never saves more: it fills rows less well, and its attention pays for a mask.

Shapes: B rows, T positions of a row, S = B T slots of padded rows, N tokens, Q queries of a row, K head_dim.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Slots:
    """The slots of S that hold a token, at least one; the others are padding."""

    def __init__(self, filled_S: Tensor) -> None:
        self.slot_N = filled_S.nonzero()[:, 0]
        # the number of each slot's token; N in padding
        self.token_S = torch.where(filled_S, filled_S.cumsum(0) - 1, len(self.slot_N))
        self._some_token_S = self.token_S.clamp(max=len(self.slot_N) - 1)

    def gather(self, x_S: Tensor) -> Tensor:
        """The values of filled slots: [S, ...] -> [N, ...]."""
        y_N: Tensor = _Gather.apply(x_S, self.slot_N, self.token_S)  # type: ignore[no-untyped-call]  # torch's
        return y_N

    def scatter(self, x_N: Tensor) -> Tensor:
        """The inverse: [N, ...] -> [S, ...]. Padding slots hold arbitrary values; callers must mask them."""
        y_S: Tensor = _Scatter.apply(x_N, self.slot_N, self._some_token_S)  # type: ignore[no-untyped-call]  # torch's
        return y_S


class PaddedRows(Slots):
    """The slots of padded rows, [B, T]."""

    def __init__(self, filled_BT: Tensor) -> None:
        super().__init__(filled_BT.flatten())
        self.shape = filled_BT.shape

    def scatter_rows(self, x_N: Tensor) -> Tensor:
        """[N, ...] -> [B, T, ...]."""
        return self.scatter(x_N).view(*self.shape, *x_N.shape[1:])

    def scatter_heads(self, x_NHK: Tensor) -> Tensor:
        """[N, H, K] -> [B, H, T, K]."""
        return self.scatter_rows(x_NHK).transpose(1, 2)


class Unpadded(NamedTuple):
    """A batch without the tokens on which no wanted position depends."""

    tokens: PaddedRows
    """The tokens that are computed."""
    wanted: PaddedRows
    """The wanted tokens, moved to the left of each row."""
    queries: Slots
    """Indices of the wanted tokens among the tokens."""
    mask: Tensor
    """The keys that each wanted token attends to in its row: [B, 1, Q, T], Q slots in a row of `wanted`."""


def unpad(wanted_BT: Tensor) -> Unpadded | None:
    """The smallest batch that gives the output at these positions (boolean); None where there is none."""
    T = wanted_BT.shape[1]
    index_T = torch.arange(T, device=wanted_BT.device)
    seen_BT = wanted_BT.flip(1).cumsum(1).flip(1) > 0  # wanted positions attend to nothing after the last one
    count_B = wanted_BT.sum(1)
    most = int(count_B.max())
    if not most:
        return None
    wanted = PaddedRows(index_T[:most] < count_B[:, None])
    position_BQ = wanted.scatter_rows(wanted_BT.nonzero()[:, 1])
    mask_BQT = index_T <= position_BQ[..., None]
    return Unpadded(PaddedRows(seen_BT), wanted, Slots(wanted_BT[seen_BT]), mask_BQT[:, None])


def permuted(x_N: Tensor, order_N: Tensor, inverse_N: Tensor) -> Tensor:
    """The values in another order, each of them once, [N, ...]; `inverse_N` is the inverse permutation."""
    y_N: Tensor = _Gather.apply(x_N, order_N, inverse_N)  # type: ignore[no-untyped-call]  # torch's
    return y_N


# Both read by index and so do their gradients. torch's own gradient of reading by index writes by index, which takes
# four times as long on a CPU; of an update of the default base that is within noise (tests/bench/cpu.py).
class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_S: Tensor, slot_N: Tensor, token_S: Tensor) -> Tensor:
        ctx.save_for_backward(token_S)
        return x_S.index_select(0, slot_N)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None, None]:
        (token_S,) = ctx.saved_tensors
        zero = grad_N.new_zeros(1, *grad_N.shape[1:])  # of padding
        return torch.cat((grad_N, zero)).index_select(0, token_S), None, None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_N: Tensor, slot_N: Tensor, some_token_S: Tensor) -> Tensor:
        ctx.save_for_backward(slot_N)
        return x_N.index_select(0, some_token_S)

    @staticmethod
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, None, None]:  # padding is masked: its gradient is dropped
        (slot_N,) = ctx.saved_tensors
        return grad_S.index_select(0, slot_N), None, None
