"""Learning-rate schedule and batch-size warm-up: an error trains a worse model without a message."""

import itertools
import math
from typing import Any

import pytest

from pipeline.config.recipe import Schedule
from pipeline.errors import UserError
from pipeline.training.schedule import learning_rate_factor, micro_batches, resolved


def schedule(shape: str, **changes: Any) -> Schedule:
    fields = {
        "shape": shape,
        "steps": 100,
        "warmup_steps": 10,
        "final_share": 0.1,
        "accumulate": 1,
        "batch_warmup_steps": 0,
        "clip_norm": 1.0,
    }
    return Schedule.model_validate(fields | changes)


@pytest.mark.parametrize("shape", ["cosine", "linear", "trapezoid", "constant"])
def test_learning_rate_factor_rises_to_the_peak_in_warm_up_and_never_after(shape: str) -> None:
    rates = [learning_rate_factor(schedule(shape), step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == 1.0
    assert max(rates) == 1.0
    assert all(b <= a for a, b in itertools.pairwise(rates[9:]))


@pytest.mark.parametrize("shape", ["cosine", "linear", "trapezoid"])
def test_learning_rate_factor_ends_at_the_final_share(shape: str) -> None:
    assert learning_rate_factor(schedule(shape), 99) == pytest.approx(0.1)


def test_learning_rate_factor_is_half_way_down_in_the_middle_of_a_cosine() -> None:
    assert learning_rate_factor(schedule("cosine", warmup_steps=0), 49) == pytest.approx(
        0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2))
    )


def test_learning_rate_factor_is_constant_until_the_last_fifth_of_a_trapezoid() -> None:
    rates = [learning_rate_factor(schedule("trapezoid", warmup_steps=0), step) for step in range(100)]
    assert set(rates[:79]) == {1.0}
    assert rates[85] < 1.0


def test_micro_batches_grow_evenly_and_each_number_comes_once() -> None:
    grown = [micro_batches(schedule("constant", accumulate=4, batch_warmup_steps=8), step) for step in range(12)]
    assert [len(numbers) for numbers in grown] == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 4, 4]
    assert list(itertools.chain(*grown)) == list(range(36))
    steep = [micro_batches(schedule("constant", accumulate=5, batch_warmup_steps=2), step) for step in range(4)]
    assert [len(numbers) for numbers in steep] == [3, 5, 5, 5]
    assert micro_batches(schedule("constant", accumulate=3), 7) == range(21, 24)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "accumulate", "batch_warmup_steps", "steps"),
    [(1, 10, 1, 0, 10), (3, 16, 1, 0, 19), (0.5, 16, 1, 0, 4), (2, 16, 4, 0, 4), (2, 16, 4, 8, 7), (0.01, 16, 1, 0, 1)],
)
def test_resolved_takes_the_fewest_updates_that_make_the_epochs(
    epochs: float, batch_size: int, accumulate: int, batch_warmup_steps: int, steps: int
) -> None:
    """Of 100 examples; a growing batch counts what it draws."""
    changes = {"steps": None, "epochs": epochs, "accumulate": accumulate, "batch_warmup_steps": batch_warmup_steps}
    given = schedule("cosine", **changes)
    made = resolved(given, 100, batch_size)
    assert (made.updates, made.epochs) == (steps, None)
    drawn = micro_batches(made, steps).start * batch_size
    assert drawn >= epochs * 100
    assert steps == 1 or micro_batches(made, steps - 1).start * batch_size < epochs * 100
    assert given.trains
    with pytest.raises(UserError, match=r"schedule.epochs is .*; write schedule.steps instead"):
        _ = given.updates


def test_resolved_leaves_a_schedule_in_steps_as_it_is() -> None:
    assert resolved(schedule("cosine"), 7, 3) == schedule("cosine")


@pytest.mark.parametrize("changes", [{"epochs": 3}, {"steps": None}, {"steps": None, "epochs": 0}])
def test_schedule_refuses_both_lengths_none_and_no_epoch(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected one of them: steps: 120, or epochs: 3|greater than 0"):
        schedule("cosine", **changes)


def test_schedule_refuses_a_batch_warm_up_without_accumulation() -> None:
    with pytest.raises(ValueError, match="batch_warmup_steps is 5 and accumulate 1: there is nothing to grow to"):
        schedule("constant", batch_warmup_steps=5)
