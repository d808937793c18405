"""Credit for a choice by likelihood: ties and broken scores must not make a model right."""

import pytest

from pipeline.errors import UserError
from pipeline.inference.choices import credit


@pytest.mark.parametrize(
    ("costs", "right", "expected"),
    [
        ([1.0, 2.0, 3.0], [0], 1.0),
        ([2.0, 1.0, 3.0], [0], 0.0),
        ([1.0, 1.0, 3.0], [0], 0.5),
        ([1.0, 1.0, 1.0, 1.0], [2], 0.25),
        ([1.0, 1.0, 3.0], [0, 1], 1.0),
        ([70.000001, 70.0], [0], 0.5),  # rounding of float32
        ([70.001, 70.0], [0], 0.0),
    ],
)
def test_credit_is_shared_by_equally_likely_choices(costs: list[float], right: list[int], expected: float) -> None:
    assert credit(costs, right) == expected


@pytest.mark.parametrize("cost", [float("nan"), float("inf")])
def test_credit_refuses_costs_that_are_not_finite(cost: float) -> None:
    """Lost otherwise: the argmin of NaN is the first choice, so that a broken model answers every pair rightly."""
    with pytest.raises(UserError, match="expected finite numbers"):
        credit([cost, cost], [0])
