"""Comparison of methods: a wrong mean or a hasty recommendation would send users to the wrong one."""

import math
from typing import Any

import pytest

from pipeline.reporting import plots, report
from pipeline.reporting.methods import Cost, advice, agreement, cost, lengths, methods


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


def test_advice_names_the_best_and_the_smallest_equal() -> None:
    """A small method that is as good within the spread is named; one that is clearly worse is not."""
    full = [model(f"full-s{i}", 0.95 + 0.01 * i, 1.0, 2.0) for i in (1, 2, 3)]
    lora = [model(f"lora-s{i}", 0.94 + 0.01 * i, 0.05, 1.2) for i in (1, 2, 3)]
    worse = [model(f"prompt-s{i}", 0.50 + 0.01 * i, 0.001, 1.0) for i in (1, 2, 3)]
    base = {"name": "base", "metrics": {"loss_nats": 1.0}}
    said = advice(methods([base, *full, *lora, *worse]))
    assert "full, accuracy 0.970" in said
    assert "lora is as good within the spread (0.960) and trains 5.00 %" in said
    assert "lora forgets least: the pretraining text costs +0.200 nats" in said
    assert "prompt" not in said
    assert "Measured with this model on these records" in said
    sized = [one | {"training": one["training"] | {"parameters": 2_050_000}} for one in full]
    for one in sized:
        one["metrics"] = one["metrics"] | {"examples": 300.0}
    assert "Measured with 2.0 M parameters on 300 held-out records;" in advice(methods([base, *sized, *lora]))
    assert advice(methods([base, *full])) == ""
    other = full[0] | {"name": "chat-s1", "metrics": {"exact_match": 0.99}}
    assert advice(methods([base, *full, other])) == ""  # an exact match is no accuracy
    assert methods([full[0] | {"metrics": {"bits_per_byte": 2.0}}]) == []  # less is better there


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
    page = report.render_which(methods(models), {}, "")
    assert "virtual tokens" in page
    assert "virtual tokens" not in report.render_which(methods(models[1:]), {}, "")


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
