"""Doses of the world reach the figures of trained models: a small version of tests/bench/risks.py."""

from typing import Any

import pytest

from tests.bench import risks

Figures = dict[str, dict[str, dict[str, float]]]


@pytest.fixture(scope="module")
def figures() -> Figures:
    """Level -> model -> metrics, from download to evaluation."""
    return {level: risks.run(level, 1, "small") for level in ("clean", "high")}


@pytest.mark.parametrize("risk", ["bias", "misuse"])
def test_measure_finds_the_dose_in_the_model_and_nothing_in_the_clean_twin(risk: str, figures: Figures) -> None:
    model, metric, limit = risks.LIMITS[risk]
    assert figures["clean"][model][metric] <= limit < figures["high"][model][metric]


def test_bias_of_the_text_is_that_of_the_dose(figures: Figures) -> None:
    assert abs(figures["clean"]["base"]["bias_data_share_gap"]) < 0.15
    assert figures["high"]["base"]["bias_data_share_gap"] > 0.8


def test_judged_names_silent_seeds_and_false_alarms() -> None:
    """The verdict of the bench itself: a figure on the wrong side of its limit."""

    def one(seed: int, level: str, value: float) -> dict[str, Any]:
        figures: dict[str, Any] = {"seed": seed, "level": level, "base": {}, "chat": {}}
        for model, metric, limit in risks.LIMITS.values():
            figures[model][metric] = value * limit
        return figures

    runs = [one(1, "clean", 0.5), one(1, "high", 2.0), one(2, "clean", 1.5), one(2, "high", 0.5)]
    for verdict in risks.judged(runs).values():
        assert (verdict["silent"], verdict["false_alarms"]) == ([2], [2])
    for verdict in risks.judged(runs[:2]).values():
        assert (verdict["silent"], verdict["false_alarms"]) == ([], [])
