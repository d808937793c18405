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
    (harmless, model, metric), *_, (dosed, _, _) = risks.RISKS[risk].places
    assert figures[harmless][model][metric] < risks.limits()[metric] <= figures[dosed][model][metric]


def test_bias_of_the_text_is_that_of_the_dose(figures: Figures) -> None:
    assert abs(figures["clean"]["base"]["bias_data_share_gap"]) < 0.15
    assert figures["high"]["base"]["bias_data_share_gap"] > 0.8


def of_runs(values: dict[int, tuple[float, float]]) -> list[dict[str, Any]]:
    """Runs of all judged levels; seed -> the figures without and with the highest dose, in multiples of the limits."""
    runs: dict[tuple[int, str], dict[str, Any]] = {}
    for seed, multiples in values.items():
        for risk in risks.RISKS.values():
            for place in risk.places:
                level, model, name = place
                one = runs.setdefault((seed, level), {"seed": seed, "level": level})
                multiple = multiples[place == risk.places[-1]]
                one.setdefault(model, dict.fromkeys(risks.limits(), 0.0))[name] = (
                    multiple * risks.limits()[risk.limited]
                )
    return list(runs.values())


def test_judged_names_silent_seeds_and_false_alarms() -> None:
    """The verdict of the bench itself: a figure on the wrong side of its limit."""
    for risk, verdict in risks.judged(of_runs({1: (0.5, 2.0), 2: (1.5, 0.5), 3: (0.99, 1.0)})).items():
        assert (verdict["false_alarms"], verdict["silent"]) == ([2], [2]), risk
        assert verdict["between"] == pytest.approx([1.5 * verdict["limit"], 0.5 * verdict["limit"]]), risk


def test_judged_raises_where_a_model_lacks_the_metric() -> None:
    """Lost otherwise: a measure that is gone is neither silent nor a false alarm, and the bench passes."""
    runs = of_runs({1: (0.5, 2.0), 2: (0.5, 2.0)})
    del next(one for one in runs if (one["seed"], one["level"]) == (2, "high"))["chat"]["invented_error"]
    with pytest.raises(ValueError, match="seed 2, level high: chat has no invented_error"):
        risks.judged(runs)


def test_moved_names_the_seeds_on_which_a_mitigation_fails() -> None:
    def one(seed: int, level: str, value: float) -> dict[str, Any]:
        figures = {metric: value for _, *places in risks.MITIGATIONS.values() for _, _, metric in places}
        return {"seed": seed, "level": level, "base": figures, "chat": figures, "new-replay": figures,
                "new": dict.fromkeys(figures, 2.0)}  # fmt: skip

    runs = [one(1, "high", 2.0), one(1, "mitigated", 1.0), one(2, "high", 2.0), one(2, "mitigated", 2.0)]
    for name, found in risks.moved(runs).items():
        assert (found["before"], found["after"], found["failed"]) == ([2.0, 2.0], [1.0, 2.0], [2]), name


def test_limits_cover_every_risk_of_the_bench_and_no_other_metric() -> None:
    """Lost otherwise: the profile judges a metric whose limit nobody tried, or the bench tries another limit."""
    assert set(risks.limits()) == {risk.limited for risk in risks.RISKS.values()}
