"""The credit for a choice by likelihood: 1 where the right one is the likeliest, 1/k where k are equally likely."""

import math
from collections.abc import Collection, Sequence

from pipeline.errors import UserError

# Equal texts in different batches differ by rounding: float32 has 24 bits, and a score is a sum of some 20 tokens.
_RELATIVE, _ABSOLUTE = 1e-6, 1e-5


def credit(costs: Sequence[float], right: Collection[int]) -> float:
    """The share of right ones among the choices with the lowest cost, 0 to 1.

    Args:
        costs: of each choice, such as its nats, or nats by byte.
        right: indices of the right choices.

    Raises:
        UserError: a cost that is not finite: its argmin would be the first choice, which is often the right one.
    """
    if not all(map(math.isfinite, costs)):
        raise UserError(f"the costs of a question's choices are {list(costs)}; expected finite numbers")
    least = min(costs)
    best = [i for i, cost in enumerate(costs) if math.isclose(cost, least, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)]
    return sum(i in right for i in best) / len(best)
