"""A batch of texts computed in two groups, short and long, so that short texts are not padded to the longest.

transformers computes padded positions like real ones. Of messages in batches of 16 they are 40 to 50 % of all; two
groups save a quarter to a third of a forward and backward pass (MiniLM, `python -m tests.bench.few_labels`). Scores are
those of one group up to rounding. On a GPU two small passes take as long as a large one, so it is used on a CPU only.

Shapes: B examples, T tokens.
"""

import torch
from torch import Tensor

_LEAST_SAVED = 0.15  # share of positions; below it the second pass costs what it saves


def length_groups(mask_BT: Tensor) -> list[tuple[Tensor, int]]:
    """Rows of each group and their longest length, for texts padded on the right: one group, or two."""
    n, width = mask_BT.shape
    lengths_B, order_B = mask_BT.sum(dim=1).sort(stable=True)
    firsts = torch.arange(1, n, device=mask_BT.device)
    padded = firsts * lengths_B[:-1] + (n - firsts) * lengths_B[-1]  # of a cut after 1, 2, ... n - 1 rows
    if n < 2 or int(padded.min()) > (1 - _LEAST_SAVED) * n * width:
        return [(torch.arange(n, device=mask_BT.device), width)]
    cut = int(padded.argmin()) + 1
    return [(order_B[:cut], int(lengths_B[cut - 1])), (order_B[cut:], int(lengths_B[-1]))]
