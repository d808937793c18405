"""A comparison that takes an hour where it said minutes, or leaves out what had room, is not run twice."""

import numpy as np
import pytest

from pipeline.studies.comparison_plan import Limits, Speed, limits, plan, settings
from pipeline.studies.sizes import Sizes

LIMITS = Limits(64, 64, 0, 16, 200, 5, 800, 200)


def sizes(kind: str = "labelled", train: int = 800, **more: object) -> Sizes:
    records = {"train": train, "validation": max(3, train // 16), "test": max(3, train // 4)}
    lengths = np.full(sum(records.values()), 40)
    answers = lengths - 30 if kind == "instructions" else np.zeros(0, np.int64)
    return Sizes(kind, {"train": 9000}, lengths, records, lengths, answers)._replace(**more)  # type: ignore[arg-type]


def speed(lora: float | None = 0.1, full: float | None = 0.2, token: float = 1e-5) -> Speed:
    return Speed(2.0, token, lora, full, {"lora": "no classifier"} if lora is None else {})


@pytest.mark.parametrize(("budget_s", "lora"), [
    (600, (4, 200)), (100, (2, 200)), (60, (2, 100)), (39, (1, 100)), (22, (1, 50)),
])  # fmt: skip
def test_plan_searches_less_and_trains_shorter_where_the_budget_is_small(
    budget_s: float, lora: tuple[int, int]
) -> None:
    made = plan(LIMITS, speed(full=None), sizes(), 384, budget_s, 2, 1)
    assert (len(made.trials["lora"].settings), made.trials["lora"].steps) == lora
    assert made.seconds <= budget_s


def test_plan_leaves_a_method_out_that_has_no_room_and_says_how_long_it_would_take() -> None:
    made = plan(LIMITS, speed(lora=0.5, full=30.0), sizes(), 384, 300, 2, 1)
    assert list(made.trials) == ["lora"]
    assert made.left_out == {
        "full": "over the budget: the shortest would take 31 min, an update 30.0 s; --minutes raises the budget"
    }


def test_plan_names_why_a_method_cannot_train_a_model() -> None:
    made = plan(LIMITS, speed(lora=None), sizes(), 384, 300, 2, 1)
    assert made.left_out == {"lora": "no classifier"}
    assert list(made.trials) == ["full"]


def test_plan_asks_fewer_records_where_tokens_are_slow() -> None:
    fast = plan(LIMITS, speed(), sizes(), 384, 300, 2, 1).prompt_records
    slow = plan(LIMITS, speed(token=0.02), sizes(), 384, 300, 2, 1).prompt_records
    assert fast == {0: 200, 4: 200, 8: 200}
    assert 0 < slow[0] < 200
    encoder = plan(LIMITS, speed(token=0.0), sizes(), 384, 300, 2, 1)
    assert encoder.prompt_records == {}


@pytest.mark.parametrize(("train", "batch", "steps"), [(7, 2, 60), (74, 16, 60), (836, 16, 209), (9000, 16, 240)])
def test_limits_follow_the_number_of_records(train: int, batch: int, steps: int) -> None:
    made = limits("labelled", sizes(train=train), 512, 2)
    assert (made.batch_size, made.steps, made.max_tokens) == (batch, steps, 48)
    assert limits("labelled", sizes(train=train), 32, 2).max_tokens == 32


def test_limits_of_instructions_leave_room_for_the_longest_answer() -> None:
    made = limits("instructions", sizes("instructions", train=800), 512, 0)
    assert (made.max_tokens, made.max_prompt_tokens, made.answer_tokens) == (88, 78, 16)
    assert made.held_out == 100


def test_settings_are_smaller_rates_for_wider_models() -> None:
    narrow, wide = settings("lora", 64), settings("lora", 768)
    assert [setting["rank"] for setting in narrow] == [8, 8, 2, 2]
    assert narrow[0]["learning_rate"] == pytest.approx(12 * wide[0]["learning_rate"])
    assert len(settings("full", 384)) == 2
