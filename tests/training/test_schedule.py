"""Learning-rate schedule and batch-size warm-up: an error trains a worse model without a message."""

import itertools
import math

import pytest

from pipeline.config.recipe import Schedule
from pipeline.training.schedule import learning_rate_factor, micro_batches


def schedule(shape: str, **changes: float) -> Schedule:
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


def test_schedule_refuses_a_batch_warm_up_without_accumulation() -> None:
    with pytest.raises(ValueError, match="batch_warmup_steps is 5 and accumulate 1: there is nothing to grow to"):
        schedule("constant", batch_warmup_steps=5)
