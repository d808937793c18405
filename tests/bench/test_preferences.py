"""Claims of the bench `preferences` from figures that hold them and figures that break each."""

import copy
import math
from typing import Any

import pytest

from pipeline import frontier
from tests.bench import preferences

POINTS = [
    {"update": i, "kl_nats": kl, "true_reward": reward}
    for i, (kl, reward) in enumerate([(0.0, 0.3), (0.7, 0.6), (2.0, 0.8), (3.1, 0.88), (9.0, 0.5)])
]
BEST_OF = [{"by": "judge", "n": n, "kl_nats": frontier.kl_of_best(n), "true_reward": reward}
           for n, reward in ((1, 0.3), (4, 0.55), (16, 0.78))]  # fmt: skip


def curve(turns: bool) -> dict[str, Any]:
    return {"points": POINTS, "curves": {"true": {"turning": 1.7 if turns else None, "turns": turns}}}


def policy(**changes: Any) -> dict[str, Any]:
    return {"true_reward": 0.88, "best_possible_reward": 0.9, "true_win_rate": 0.8, "kl_nats": 3.0, "seconds": 50.0,
            "along": curve(turns=False), "frontier": {"best_of": BEST_OF}} | changes  # fmt: skip


def found() -> dict[str, dict[str, Any]]:
    coin = policy(true_win_rate=0.51, true_win_rate_low=0.47, true_win_rate_high=0.55)
    return {
        "taste": {"sft": policy(true_reward=0.3), "reward-s1": {"reward_ceiling_gap": 0.02}, "grpo-s1": policy(),
                  "far-s1": policy()},
        "null": {"grpo-s1": coin},
        "shortcut": {"far-s1": policy(along=curve(turns=True))},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("world", "model", "changes", "broken"),
    [
        ("taste", "grpo-s1", {"true_reward": 0.7}, "grpo: share of the best possible reward, of 1"),
        ("taste", "grpo-s1", {"kl_nats": 11.0}, "grpo: win rate"),
        ("taste", "grpo-s1", {"true_win_rate": 0.6}, "grpo: win rate"),
        ("taste", "grpo-s1", {"seconds": 61.0}, "grpo: CPU seconds"),
        ("taste", "grpo-s1", {"frontier": {"best_of": [BEST_OF[2] | {"true_reward": 0.9}]}},
         "grpo: reward beside best-of-n at equal KL"),
        ("taste", "reward-s1", {"reward_ceiling_gap": 0.04}, "reward model: accuracy below the noise ceiling"),
        ("taste", "far-s1", {"along": curve(turns=True)}, "taste: turning point of the truth is not found"),
        ("shortcut", "far-s1", {"along": curve(turns=False)}, "shortcut: turning point of the truth is found"),
        ("null", "grpo-s1", {"true_win_rate_low": 0.52}, "null world, grpo-s1: win rate"),
    ],
)  # fmt: skip
def test_claims_hold_and_each_is_broken_by_its_own_figure(
    world: str, model: str, changes: dict[str, Any], broken: str
) -> None:
    made = preferences.claims(found())
    assert {name for name, one in made.items() if not one["holds"]} == set()
    figures = copy.deepcopy(found())
    figures[world][model] |= changes
    assert broken in {name for name, one in preferences.claims(figures).items() if not one["holds"]}


def test_chosen_state_is_the_last_within_the_budget_and_knows_no_truth() -> None:
    assert preferences.chosen(POINTS) == 1.0
    worse = [point | {"true_reward": 0.1} if point["update"] == 3 else point for point in POINTS]
    assert preferences.chosen(worse) == pytest.approx(0.1 / 0.8)


def test_best_of_n_is_compared_at_its_own_kl() -> None:
    shares = preferences._beside_best_of(policy())
    assert set(shares) == {4, 16}
    short = preferences._beside_best_of(policy(along={"points": POINTS[:2], "curves": {}}))
    assert (math.isfinite(short[4]), math.isfinite(short[16])) == (True, False)  # shown as null: not reached
    low, high = math.sqrt(0.7), math.sqrt(2.0)
    between = (math.sqrt(frontier.kl_of_best(16)) - low) / (high - low)
    assert shares[16] == pytest.approx((0.6 + 0.2 * between) / 0.78)
