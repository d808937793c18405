"""Which examples come when must be a function of (seed, step), or a resumed run sees other data."""

from typing import Any

import numpy as np
import pytest

from pipeline import plugins

CURRICULUM = {"difficulty": "length", "shape": "root", "start": 0.1, "full_after": 10}
SETTINGS: dict[str, dict[str, Any]] = {"curriculum": CURRICULUM, "shuffled": {}}


def order_of(name: str, **changes: Any) -> Any:
    """The order, told that example i is the harder the larger i * 7 % 20 is."""
    fields = SETTINGS[name] | {"batch_size": 8} | changes
    order = plugins.load("ordering", name).build(plugins.settings_class("ordering", name)(**fields))
    order.prepare(lambda what: np.arange(20) * 7 % 20)
    return order


def test_every_order_is_tested_here() -> None:
    assert sorted(SETTINGS) == plugins.choices("ordering")


@pytest.mark.parametrize("name", SETTINGS)
def test_any_step_can_be_asked_for_and_the_seed_decides(name: str) -> None:
    order = order_of(name)
    forward = [order.rows(20, step, 7) for step in range(15)]
    backward = [order.rows(20, step, 7) for step in reversed(range(15))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not all(np.array_equal(rows, order.rows(20, step, 8)) for step, rows in enumerate(forward))
    assert set(np.concatenate(forward)) == set(range(20))


@pytest.mark.parametrize("shape", ["linear", "step", "root"])
def test_a_curriculum_goes_from_easy_to_all(shape: str) -> None:
    """Lost otherwise: the curriculum would be a shuffle under another name (or never reach the hard examples)."""
    order = order_of("curriculum", shape=shape)
    shares = [order.competence(step) for step in range(12)]
    assert shares[0] == pytest.approx(0.1)
    assert shares == sorted(shares)
    assert shares[10] == shares[11] == 1.0
    # 0.1 of 20 examples are two: those with i * 7 % 20 of 0 and 1
    assert set(order.rows(20, 0, 1)) == {0, 3}
    assert len(set(order.rows(20, 11, 1))) == 8  # no repeats while there are enough


def test_competence_is_platanios_equation_7() -> None:
    order = order_of("curriculum")
    assert order.competence(4) == pytest.approx((0.4 * (1 - 0.1**2) + 0.1**2) ** 0.5)


@pytest.mark.parametrize("name", ["shuffled"])
def test_every_example_comes_once_an_epoch(name: str) -> None:
    order = order_of(name)
    forward = [order.rows(20, step, 7) for step in range(5)]
    backward = [order.rows(20, step, 7) for step in reversed(range(5))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    seen = np.concatenate(forward)
    assert sorted(seen[:20]) == list(range(20)) == sorted(seen[20:40])
    assert not np.array_equal(seen[:20], np.concatenate([order.rows(20, step, 8) for step in range(5)])[:20])
