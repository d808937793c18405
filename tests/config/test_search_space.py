"""What a search may vary is checked when params are read: without it a typo is found by the third trial of a night."""

from typing import Any

import pytest
import yaml

from pipeline import config
from pipeline.errors import UserError
from pipeline.paths import CODE as ROOT

RATE, RANK = "optimizer.learning_rate", "tuner.rank"


@pytest.mark.parametrize(
    ("path", "entry", "words"),
    [
        ("tuner.rnk", {"choices": [2]}, ["space.tuner.rnk", "no 'rnk'", "rank"]),
        ("tuna.rank", {"choices": [2]}, ["space.tuna.rank", "no 'tuna'", "tuner"]),
        ("optimizer.learning_rate.low", {"choices": [2]}, ["learning_rate.low", "nothing below it"]),
        (RATE, {"low": 0.1, "high": 0.01, "log": True}, [f"space.{RATE}", "low 0.1 is not below high 0.01"]),
        (RATE, {"low": 0.0, "high": 0.01, "log": True}, [f"space.{RATE}", "must be above 0"]),
        (RATE, {"low": 0.1, "high": 0.2}, [f"space.{RATE}.log is missing"]),
        (RATE, {"low": 0.1, "hihg": 0.2, "log": True}, [f"space.{RATE}.hihg", "did you mean 'high'"]),
        (RATE, {"low": -0.1, "high": 0.2, "log": False}, [f"space.{RATE}: -0.1 is refused", "greater than"]),
        (RANK, {"low": 2, "high": 8.5, "log": False}, [f"space.{RANK}: the recipe's value is 8", "8.5"]),
        (RANK, {"choices": [2, 4.0]}, [f"space.{RANK}: the recipe's value is 8", "an integer"]),
        (RANK, {"choices": [4, 0]}, [f"space.{RANK}: 0 is refused", "greater than 0"]),
        (RANK, {"choices": [4, 4]}, [f"space.{RANK}", "4 twice"]),
        (RANK, {"choices": []}, [f"space.{RANK}.choices", "at least 1"]),
        ("optimizer.name", {"low": 1, "high": 2, "log": False}, ["space.optimizer.name", "not a number; use choices"]),
        ("optimizer.name", {"choices": ["adamw", "adam"]}, ["space.optimizer.name: 'adam' is refused", "muon"]),
        ("validation.every", {"choices": [10]}, ["space.validation.every", "compared by one loss"]),
        ("from", {"choices": ["base"]}, ["space.from", "compared by one loss"]),
    ],
)
def test_check_names_the_path_when_a_search_space_is_wrong(path: str, entry: dict[str, Any], words: list[str]) -> None:
    """Lost otherwise: the third trial of a night ends it, or a typo searches nothing."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["search"]["spam-lora"]["space"] = {path: entry}
    with pytest.raises(UserError) as caught:
        config.check(raw)
    for word in ["params.yaml: search.spam-lora.space", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spam-lorra": {}}, "search.spam-lorra names no recipe; one of: base, spam-full"),
        ({"spam-lora": {"trials": 3}}, "search.spam-lora.seed is missing"),
        ({"spam-lora": {"trials": 0}}, "search.spam-lora.trials: Input should be greater than 0"),
    ],
)
def test_check_names_the_path_when_a_search_is_wrong(change: dict[str, Any], words: str) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["search"] = change
    with pytest.raises(UserError, match=words):
        config.check(raw)


def test_check_refuses_a_space_inside_a_part_that_is_varied_whole() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["search"]["spam-lora"]["space"] = {"tuner": {"choices": [{"name": "full"}]}, RANK: {"choices": [2]}}
    with pytest.raises(UserError, match=r"space\.tuner\.rank lies inside tuner"):
        config.check(raw)
