"""Which examples come when must be a function of (seed, step), or a resumed run sees other data."""

import numpy as np
import pytest

from pipeline import plugins


@pytest.mark.parametrize("name", plugins.choices("ordering"))
def test_any_step_can_be_asked_for_and_every_example_comes_once_an_epoch(name: str) -> None:
    settings = plugins.settings_class("ordering", name).model_validate({"batch_size": 8})  # type: ignore[attr-defined]
    order = plugins.load("ordering", name).build(settings)
    forward = [order.rows(20, step, 7) for step in range(5)]
    backward = [order.rows(20, step, 7) for step in reversed(range(5))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    seen = np.concatenate(forward)
    assert sorted(seen[:20]) == list(range(20)) == sorted(seen[20:40])
    assert not np.array_equal(seen[:20], np.concatenate([order.rows(20, step, 8) for step in range(5)])[:20])
