"""Which examples come when must be a function of (seed, step), or a resumed run sees other data."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import plugins
from pipeline.config.recipe import Compute
from pipeline.contracts import Learner
from pipeline.errors import UserError
from tests.fakes import ByteTokenizer
from tests.models import network

COMPUTE = Compute(device="cpu", threads=1, precision="float32", compile=False)

CURRICULUM = {"difficulty": "length", "given": None, "shape": "root", "start": 0.1, "full_after": 10}
SETTINGS: dict[str, dict[str, Any]] = {
    "curriculum": CURRICULUM,
    "mixture": {"column": "source", "shares": {"new": 3.0, "old": 1.0}},
    "poisson": {},
    "shuffled": {},
}


class Examples(list[int]):
    """Twenty examples; number i has a source and a length that is the larger, the larger i * 7 % 20 is."""

    def column(self, name: str) -> list[str]:
        return {"source": ["new" if i % 5 else "old" for i in self], "hard": ["no" if i < 10 else "yes" for i in self]}[
            name
        ]


def learner() -> Learner:
    class Objective:
        def collate(self, examples: list[int]) -> dict[str, torch.Tensor]:
            return {"inputs": torch.zeros(1, 1 + examples[0] * 7 % 20)}

    return Learner(network(), Objective(), Examples(range(20)), COMPUTE, ByteTokenizer())  # type: ignore[arg-type]


def order_of(name: str, **changes: Any) -> Any:
    fields = SETTINGS[name] | {"batch_size": 8} | changes
    return plugins.load("ordering", name).build(plugins.settings_class("ordering", name)(**fields), learner())


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


def test_a_mixture_draws_groups_by_their_shares_and_leaves_the_others_out() -> None:
    """Lost otherwise: "a quarter of old text" would be whatever the files happen to hold (here a fifth)."""
    order = order_of("mixture")
    rows = np.concatenate([order.rows(20, step, 1) for step in range(500)])
    assert np.mean(rows % 5 == 0) == pytest.approx(0.25, abs=0.02)  # 4,000 draws: a standard error of 0.007
    assert set(np.concatenate([order_of("mixture", shares={"old": 1.0}).rows(20, s, 1) for s in range(9)])) == {
        0, 5, 10, 15,
    }  # fmt: skip


def test_a_mixture_is_validated_as_it_is_trained() -> None:
    """Lost otherwise: the best step would be chosen on whatever source comes first in the file."""
    order = order_of("mixture")
    rows = order.validated(Examples(range(20)))
    assert len(rows) == len(set(rows.tolist())) == 16  # all four old ones and twelve new ones
    assert [np.mean(rows[:n] % 5 == 0) for n in (4, 8, 16)] == [0.25, 0.25, 0.25]
    only_old = Examples(range(0, 20, 5))
    assert list(order.validated(only_old)) == [0, 1, 2, 3]
    assert list(order_of("mixture", shares={"new": 1.0}).validated(only_old)) == [
        0,
        1,
        2,
        3,
    ]  # nothing of its own there
    assert list(order_of("shuffled").validated(Examples(range(20)))) == list(range(20))


def test_groups_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match=r"ordering.shares names older; column 'source' holds new, old"):
        order_of("mixture", shares={"older": 1.0})


def test_difficulty_can_be_given_by_a_column() -> None:
    given = {"column": "hard", "easiest_first": ["no", "yes"]}
    order = order_of("curriculum", difficulty="given", given=given, start=0.5)
    assert set(order.rows(20, 0, 1)) <= set(range(10))
    with pytest.raises(UserError, match="lacks no, which column 'hard' holds"):
        order_of("curriculum", difficulty="given", given={"column": "hard", "easiest_first": ["yes", "very"]})
    with pytest.raises(UserError, match="`given` goes with difficulty given"):
        order_of("curriculum", difficulty="given")
    with pytest.raises(UserError, match="`given` goes with difficulty given"):
        order_of("curriculum", given=given)


def test_every_example_joins_a_poisson_batch_by_its_own_coin() -> None:
    """Lost otherwise: the epsilon of private training would be counted for another sampling. 4,000 batches of 8 of 20:
    size binomial (mean 8, variance 4.8), each example in two fifths of them, pairs as often as chance has them meet."""
    order = order_of("poisson")
    drawn = [order.rows(20, step, 7) for step in range(4000)]
    sizes = np.array([len(rows) for rows in drawn])
    assert sizes.mean() == pytest.approx(8.0, abs=4 * (4.8 / 4000) ** 0.5)
    assert sizes.var() == pytest.approx(4.8, rel=0.1)
    there = np.zeros((4000, 20))
    for step, rows in enumerate(drawn):
        assert len(set(rows)) == len(rows)
        there[step, rows] = 1
    assert np.abs(there.mean(0) - 0.4).max() < 4 * (0.24 / 4000) ** 0.5
    assert np.abs(np.corrcoef(there.T) - np.eye(20)).max() < 4.5 / 4000**0.5
    assert np.array_equal(order.rows(6, 0, 7), np.arange(6))  # no more than there are


def test_a_poisson_batch_may_be_empty() -> None:
    order = order_of("poisson", batch_size=1)
    sizes = [len(order.rows(50, step, 1)) for step in range(200)]
    assert min(sizes) == 0
    assert max(sizes) > 1
