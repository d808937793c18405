"""Methods over their seeds: a wrong mean or cost would send users to the wrong one."""

import math
from typing import Any

import pytest

from pipeline.reporting import plots, report
from pipeline.reporting.methods import Baseline, Cost, agreement, cost, lengths, methods


def model(name: str, accuracy: float, share: float, loss: float | None = None) -> dict[str, Any]:
    metrics = {"accuracy": accuracy} | ({} if loss is None else {"loss_nats": loss})
    parts = f"classify + {name.partition('-')[0]}, from base"
    return {"name": name, "parts": parts, "metrics": metrics, "training": {"trainable_share": share}}


def test_methods_joins_the_seeds_of_a_recipe() -> None:
    base = {"name": "base", "metrics": {"loss_nats": 1.0}}
    models = [
        base, model("lora-s1", 0.90, 0.05, 1.1), model("lora-s2", 0.94, 0.05, 1.3), model("full-s1", 0.95, 1.0, 1.5),
        model("spam-full", 0.99, 1.0),
    ]  # fmt: skip
    found = methods(models)
    assert [method.name for method in found] == ["full", "lora"]
    lora = found[1]
    assert lora.mean == pytest.approx(0.92)
    assert lora.spread == pytest.approx(0.0282843, abs=1e-6)
    assert lora.forgotten == pytest.approx(0.2)
    assert methods([model("spam-full", 0.99, 1.0)]) == []


def test_methods_takes_the_mean_of_the_seeds_for_each_record() -> None:
    """Lost otherwise: two methods could only be compared as if each had its own records."""
    details = {"by_record": "1 0 1", "baseline_by_record": "0 0 1"}
    seeds = [
        model("lora-s1", 2 / 3, 0.05) | {"details": {"classification": details}},
        model("lora-s2", 1 / 3, 0.05) | {"details": {"classification": details | {"by_record": "1 0 0"}}},
    ]
    for seed in seeds:
        seed["metrics"] |= {"examples": 3.0, "baseline_accuracy": 1 / 3}
        seed["training"] |= {"epochs": 0.5, "records": 9599}
    (lora,) = methods(seeds)
    assert lora.by_record == (1.0, 0.0, 0.5)
    assert lora.baseline == Baseline(1 / 3, 3, (0.0, 0.0, 1.0))
    assert (lora.records, lora.epochs, lora.training_records) == (3, 0.5, 9599)
    assert lora.interval == pytest.approx((0.125, 0.875), abs=0.001)  # 0.5 on 3 records
    seeds[1]["details"] = {"classification": {"by_record": "1 0"}}
    assert methods(seeds)[0].by_record == ()


def test_methods_leaves_out_scores_of_which_less_is_better() -> None:
    full = model("full-s1", 0.96, 1.0)
    assert methods([full | {"metrics": {"bits_per_byte": 2.0}}]) == []


def test_methods_ranks_by_chrf_when_answers_are_long() -> None:
    """Lost otherwise: on a hard task no answer is exactly right, and all methods would look alike."""
    answers = {"exact_match": 0.0}
    models = [
        model("full-s1", 0.0, 1.0) | {"metrics": answers | {"chrf": 21.0}},
        model("lora-s1", 0.0, 0.05) | {"metrics": answers | {"chrf": 24.0}},
    ]
    assert [(method.name, method.score, method.mean) for method in methods(models)] == [
        ("lora", "chrf", 24.0), ("full", "chrf", 21.0),
    ]  # fmt: skip


def test_lengths_groups_methods_by_virtual_tokens() -> None:
    """Lost otherwise: nobody would see how many virtual tokens are enough."""
    models = [
        model("prefix-20-s1", 0.95, 0.03), model("prefix-5-s1", 0.90, 0.03), model("prompt-5-s1", 0.80, 0.01),
        model("lora-8-s1", 0.96, 0.02), model("lora-16-s1", 0.96, 0.04),
    ]  # fmt: skip
    found = lengths(methods(models))
    assert {name: [length for length, _ in family] for name, family in found.items()} == {"prefix": [5, 20]}
    page = report.render_which(methods(models), {}, None, "")
    assert "virtual tokens" in page
    assert "virtual tokens" not in report.render_which(methods(models[1:]), {}, None, "")


def test_by_share_is_empty_when_all_shares_are_equal() -> None:
    """Of the methods that the picture shows: those with another score are not in it."""
    alike = [model("full-s1", 0.9, 1.0), model("gradual-s1", 0.8, 1.0)]
    other = model("lora-s1", 0.9, 0.05) | {"metrics": {"exact_match": 0.9}}
    assert plots.by_share(methods([*alike, other])) == ""
    assert "<svg" in plots.by_share(methods([*alike, model("lora-s1", 0.9, 0.05)]))


def test_cost_is_none_when_a_seed_has_no_record() -> None:
    models = [model("lora-s1", 0.9, 0.05), model("lora-s2", 0.94, 0.05)]
    (lora,) = methods(models)
    spent = {"seconds_work": 2.0, "peak_memory_mib": 300.0, "energy_wh_measured": None, "energy_wh_estimated": 0.5}
    records = {"lora-s1": spent, "lora-s2": spent | {"seconds_work": 4.0, "peak_memory_mib": 500.0}}
    assert cost(lora, records) == Cost(3.0, 500.0, 0.5, measured=False)
    assert cost(lora, {"lora-s1": spent}) is None


def test_agreement_is_spearmans_over_common_methods() -> None:
    found = methods([model(f"{name}-s1", score, 1.0) for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.7))])
    assert agreement(["a", "b", "x", "c"], found) == (pytest.approx(1.0), ["a", "b", "c"])
    assert agreement(["c", "b", "a"], found)[0] == pytest.approx(-1.0)
    assert agreement(["b", "a", "c"], found)[0] == pytest.approx(0.5)
    assert math.isnan(agreement(["a", "b"], found)[0])
