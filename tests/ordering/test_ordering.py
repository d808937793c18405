"""Orderings: a pure function of (seed, step), or a resumed run would see other data."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.recipe import Compute
from pipeline.contracts import Learner
from pipeline.errors import UserError
from tests.fakes import ByteTokenizer
from tests.models import network
from tests.variants import Variant, build, variants

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)


class Examples(list[int]):
    """Example i has a source, a difficulty and a length of 1 + i * 7 % 20."""

    def column(self, name: str) -> list[str]:
        return {"source": ["new" if i % 5 else "old" for i in self], "hard": ["no" if i < 10 else "yes" for i in self]}[
            name
        ]


def learner() -> Learner:
    class Task:
        def collate(self, examples: list[int]) -> dict[str, torch.Tensor]:
            return {"inputs": torch.zeros(1, 1 + examples[0] * 7 % 20)}

    return Learner(network(), Task(), Examples(range(20)), COMPUTE, ByteTokenizer())  # type: ignore[arg-type]


def ordering_of(name: str, **changes: Any) -> Any:
    return build("ordering", name, learner(), **{"batch_size": 8} | changes)


@pytest.mark.parametrize("variant", variants("ordering"), ids=str)
def test_every_ordering_is_a_function_of_seed_and_step_and_draws_every_example(variant: Variant) -> None:
    ordering = variant.build(learner())
    forward = [ordering.rows(20, step, 7) for step in range(15)]
    backward = [ordering.rows(20, step, 7) for step in reversed(range(15))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not all(np.array_equal(rows, ordering.rows(20, step, 8)) for step, rows in enumerate(forward))
    assert set(np.concatenate(forward)) == set(range(20))


@pytest.mark.parametrize("shape", ["linear", "step", "root"])
def test_curriculum_draws_from_the_easiest_share_until_it_is_all(shape: str) -> None:
    """Lost otherwise: the curriculum would be a shuffle, or never reach the hard examples."""
    ordering = ordering_of("curriculum", shape=shape)
    shares = [ordering.competence(step) for step in range(12)]
    assert shares[0] == pytest.approx(0.1)
    assert shares == sorted(shares)
    assert shares[10] == shares[11] == 1.0
    # 0.1 of 20 examples are two: those with i * 7 % 20 of 0 and 1
    assert set(ordering.rows(20, 0, 1)) == {0, 3}
    assert len(set(ordering.rows(20, 11, 1))) == 8  # no repeats while there are enough


def test_competence_is_equation_7_of_platanios_when_the_shape_is_root() -> None:
    ordering = ordering_of("curriculum")
    assert ordering.competence(4) == pytest.approx((0.4 * (1 - 0.1**2) + 0.1**2) ** 0.5)


def test_shuffled_draws_every_example_once_per_epoch() -> None:
    ordering = ordering_of("shuffled")
    forward = [ordering.rows(20, step, 7) for step in range(5)]
    backward = [ordering.rows(20, step, 7) for step in reversed(range(5))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))
    seen = np.concatenate(forward)
    assert sorted(seen[:20]) == list(range(20)) == sorted(seen[20:40])
    assert not np.array_equal(seen[:20], np.concatenate([ordering.rows(20, step, 8) for step in range(5)])[:20])


def test_mixture_draws_groups_by_their_shares_and_leaves_the_others_out() -> None:
    """Lost otherwise: "a quarter of old text" would be the share in the files (here a fifth)."""
    ordering = ordering_of("mixture")
    rows = np.concatenate([ordering.rows(20, step, 1) for step in range(500)])
    assert np.mean(rows % 5 == 0) == pytest.approx(0.25, abs=0.02)  # 4,000 draws: a standard error of 0.007
    assert set(np.concatenate([ordering_of("mixture", shares={"old": 1.0}).rows(20, s, 1) for s in range(9)])) == {
        0, 5, 10, 15,
    }  # fmt: skip


def test_mixture_validates_on_the_shares_that_it_trains_on() -> None:
    """Lost otherwise: the best step would be chosen by the source that comes first in the file."""
    ordering = ordering_of("mixture")
    rows = ordering.validation_rows(Examples(range(20)))
    assert len(rows) == len(set(rows.tolist())) == 16  # all four old ones and twelve new ones
    assert [np.mean(rows[:n] % 5 == 0) for n in (4, 8, 16)] == [0.25, 0.25, 0.25]
    only_old = Examples(range(0, 20, 5))
    assert list(ordering.validation_rows(only_old)) == [0, 1, 2, 3]
    assert list(ordering_of("mixture", shares={"new": 1.0}).validation_rows(only_old)) == [
        0,
        1,
        2,
        3,
    ]  # validation has no example of its own
    assert list(ordering_of("shuffled").validation_rows(Examples(range(20)))) == list(range(20))


def test_mixture_names_a_group_that_no_record_has() -> None:
    with pytest.raises(UserError, match=r"ordering.shares names older; column 'source' holds new, old"):
        ordering_of("mixture", shares={"older": 1.0})


def test_curriculum_takes_difficulty_from_a_column() -> None:
    given = {"column": "hard", "easiest_first": ["no", "yes"]}
    ordering = ordering_of("curriculum", difficulty="given", given=given, start=0.5)
    assert set(ordering.rows(20, 0, 1)) <= set(range(10))
    with pytest.raises(UserError, match="lacks no, which column 'hard' holds"):
        ordering_of("curriculum", difficulty="given", given={"column": "hard", "easiest_first": ["yes", "very"]})
    with pytest.raises(UserError, match="`given` goes with difficulty given"):
        ordering_of("curriculum", difficulty="given")
    with pytest.raises(UserError, match="`given` goes with difficulty given"):
        ordering_of("curriculum", given=given)


def test_poisson_draws_every_example_independently() -> None:
    """Lost otherwise: the epsilon of private training would be that of another sampling. 4,000 batches of 8 of 20:
    size binomial (mean 8, variance 4.8), each example in two fifths of them, pairs uncorrelated."""
    ordering = ordering_of("poisson")
    drawn = [ordering.rows(20, step, 7) for step in range(4000)]
    sizes = np.array([len(rows) for rows in drawn])
    assert sizes.mean() == pytest.approx(8.0, abs=4 * (4.8 / 4000) ** 0.5)
    assert sizes.var() == pytest.approx(4.8, rel=0.1)
    joined = np.zeros((4000, 20))
    for step, rows in enumerate(drawn):
        assert len(set(rows)) == len(rows)
        joined[step, rows] = 1
    assert np.abs(joined.mean(0) - 0.4).max() < 4 * (0.24 / 4000) ** 0.5
    assert np.abs(np.corrcoef(joined.T) - np.eye(20)).max() < 4.5 / 4000**0.5
    assert np.array_equal(ordering.rows(6, 0, 7), np.arange(6))  # at most all of them


def test_poisson_may_draw_an_empty_batch() -> None:
    ordering = ordering_of("poisson", batch_size=1)
    sizes = [len(ordering.rows(50, step, 1)) for step in range(200)]
    assert min(sizes) == 0
    assert max(sizes) > 1
