"""Measure reward_pairs: accuracy beside the noise ceiling, calibration, and the shortcut of length."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.data.sources.world import Taste, taste
from pipeline.errors import UserError
from pipeline.evaluation import Subject, reward_pairs
from pipeline.evaluation.reward_pairs import Ceiling, bins_of, ceiling_of, length_r2, length_share
from pipeline.prompts.spec import TaskSpec
from pipeline.tasks import Request, open_task
from tests.evaluation.test_measures import COMPUTE, TOKENIZER
from tests.models import network
from tests.variants import settings

SPEC = TaskSpec(name="reward", template="alpaca", max_tokens=120, max_prompt_tokens=100)


def normal(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_length_share_and_r2_find_a_model_that_has_learned_length() -> None:
    """Beside a model that has not: about half of its preferences are for the longer answer."""
    lengths, noise = normal(2000, 1), normal(2000, 2)
    learned = 0.9 * lengths + 0.1 * noise
    assert length_share(learned, lengths) > 0.9
    assert length_share(-learned, lengths) > 0.9  # the shorter one is as much of a shortcut
    assert length_share(noise, lengths) < 0.55
    assert length_r2(learned, lengths) > 0.9
    assert length_r2(noise, lengths) < 0.01
    turned = np.where(np.arange(2000) % 2, -1.0, 1.0)  # which answer of a pair is the first is arbitrary
    assert length_r2(learned * turned, lengths * turned) == pytest.approx(length_r2(learned, lengths))
    assert length_share(learned * turned, lengths * turned) == length_share(learned, lengths)


def test_length_share_leaves_out_pairs_that_say_nothing() -> None:
    assert length_share(np.array([1.0, -1.0, 0.0, 2.0]), np.array([3.0, -2.0, 5.0, 0.0])) == 1.0
    assert length_share(np.array([0.0, 1.0]), np.array([3.0, 0.0])) == 0.5
    assert length_r2(np.zeros(2), np.ones(2)) == 0.0


def test_calibration_of_true_probabilities_is_near_zero_and_of_doubled_differences_is_not() -> None:
    rng = np.random.default_rng(3)
    true = 2 * rng.normal(size=20_000)
    sign = np.where(rng.random(20_000) < 1 / (1 + np.exp(-true)), 1.0, -1.0)  # the first is chosen with probability p
    found = {}
    for factor in (1.0, 2.0):
        table = bins_of(factor * true * sign, 10)
        assert len(table) == 10
        assert {row["pairs"] for row in table} == {2000.0}
        found[factor] = sum(abs(row["probability"] - row["share"]) for row in table) / 10
    assert found[1.0] < 0.01
    assert found[2.0] > 0.05


def test_calibration_counts_a_wrong_preference_as_wrong() -> None:
    (row,) = bins_of(np.array([3.0, -3.0, 0.0]), 1)
    assert row["share"] == 0.5
    assert row["probability"] == pytest.approx((2 / (1 + np.exp(-3)) + 0.5) / 3)


WORLD = SimpleNamespace(
    seed=7, people=24, taste=Taste(requests=40, pairs=400, noise=0.2, shortcut=0.0, utility="taste")
)


def pairs_of(stated: Taste) -> list[dict[str, Any]]:
    world: Any = SimpleNamespace(seed=WORLD.seed, people=WORLD.people, taste=stated)
    return list(taste.preferences(world))


@pytest.mark.parametrize(("noise", "utility"), [(0.0, "taste"), (0.2, "taste"), (0.2, "null")])
def test_ceiling_is_the_accuracy_of_the_true_utility(noise: float, utility: Any) -> None:
    """Within three standard errors; a null utility has a ceiling of a coin."""
    stated = WORLD.taste.model_copy(update={"noise": noise, "utility": utility})
    rows = pairs_of(stated)
    ceiling = ceiling_of(Ceiling(noise=noise, shortcut=0.0, utility=utility), rows)
    values = [[taste.utility(row["instruction"], row[key], row["language"]).value for key in ("chosen", "rejected")]
              for row in rows]  # fmt: skip
    true = sum((chosen > rejected) + 0.5 * (chosen == rejected) for chosen, rejected in values) / len(rows)
    assert ceiling == 0.5 if utility == "null" else ceiling > (0.7 if noise else 0.85)
    assert true == pytest.approx(ceiling, abs=3 * (0.25 / len(rows)) ** 0.5)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    """A reward model of random weights, and held-out pairs."""
    (tmp_path / "preferences").mkdir()
    rows = [row | {"id": f"p{i}", "source": "world"} for i, row in enumerate(pairs_of(WORLD.taste)[:12])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "preferences/test.parquet")
    model = network("llama", labels=1, vocab_size=TOKENIZER.vocab_size, context_length=128).eval()
    with torch.no_grad():
        model.score.weight *= 50  # type: ignore[union-attr]
    task = open_task(SPEC, TOKENIZER)  # type: ignore[arg-type]
    return Subject("m", model, TOKENIZER, (task,), tmp_path, COMPUTE)  # type: ignore[arg-type]


def test_reward_pairs_compares_the_rewards_of_single_answers(subject: Subject) -> None:
    rows = pq.read_table(subject.samples / "preferences/test.parquet").to_pylist()
    chosen = {"noise": 0.2, "shortcut": 0.0, "utility": "taste"}
    measured = reward_pairs.measure(settings("evaluation", "reward_pairs", ceiling=chosen, bins=3), subject)
    task: Any = subject.tasks[0]

    def reward(row: dict[str, Any], key: str) -> float:
        ids = task.prompt(Request(row["instruction"], row["input"], answer=row[key]))
        return float(subject.model.classify(torch.tensor([ids])).detach())

    margins = np.array([reward(row, "chosen") - reward(row, "rejected") for row in rows])
    assert measured.metrics["reward_margin"] == pytest.approx(margins.mean(), abs=1e-4)
    assert measured.metrics["reward_accuracy"] == (margins > 0).mean()
    accuracy, losses = measured.outcomes
    assert accuracy.values == [float(margin > 0) for margin in margins]
    assert losses.values == pytest.approx(np.log1p(np.exp(-margins)).tolist(), abs=1e-4)
    gap = measured.metrics["reward_ceiling"] - measured.metrics["reward_accuracy"]
    assert measured.metrics["reward_ceiling_gap"] == gap
    assert set(measured.details["accuracy_by_language"]) == {"en", "tr"}
    assert [row["pairs"] for row in measured.details["calibration"]] == [4.0, 4.0, 4.0]
    assert all(row["reward_of_chosen"] <= row["reward_of_rejected"] for row in measured.details["most_wrong"])


def test_reward_pairs_with_swapped_answers_has_the_opposite_accuracy(subject: Subject) -> None:
    """Lost otherwise: chosen and rejected could be read from the wrong columns."""
    path = subject.samples / "preferences/test.parquet"
    right = reward_pairs.measure(settings("evaluation", "reward_pairs"), subject).metrics
    table = pq.read_table(path)
    names = {"chosen": "rejected", "rejected": "chosen"}
    pq.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), path)
    wrong = reward_pairs.measure(settings("evaluation", "reward_pairs"), subject).metrics
    assert wrong["reward_accuracy"] == 1 - right["reward_accuracy"]
    assert wrong["reward_length_share"] == right["reward_length_share"]


def test_reward_pairs_refuses_a_model_without_a_reward_and_no_pairs(subject: Subject) -> None:
    chat = TaskSpec(name="instruct", template="alpaca", max_tokens=120, max_prompt_tokens=100)
    other = subject._replace(tasks=(open_task(chat, TOKENIZER),))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"evaluations.m.measures.reward_pairs: m was not trained with task reward"):
        reward_pairs.measure(settings("evaluation", "reward_pairs"), other)
    path = subject.samples / "preferences/test.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(UserError, match=r"preferences/test.parquet has no pairs; raise split.test"):
        reward_pairs.measure(settings("evaluation", "reward_pairs"), subject)
