"""The rules themselves: a wrong sum would serve a model that nobody trained as the two that somebody did."""

import copy
from typing import Any

import pytest
import torch

from pipeline.config import plugins
from pipeline.merging import comparison
from pipeline.model.gpt import GPT
from tests.merging.models import WHOLE, moved, weights_of
from tests.models import network

NOTHING: dict[str, dict[str, Any]] = {"linear": {"scales": [0.0, 0.0]}, "ties": {"density": 0.5, "scale": 0.0}}


def rule_of(name: str, **settings: Any) -> Any:
    return plugins.load("merging", name).build(plugins.settings_class("merging", name)(**settings))


def test_every_rule_is_tested_here() -> None:
    assert sorted(WHOLE) == sorted(NOTHING) == plugins.choices("merging")


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_merged_with_its_base_is_itself_and_nothing_added_is_the_base(name: str) -> None:
    """To the last bit: a rule that loses a bit of an untouched weight would change what nobody tuned."""
    base = network()
    start, tuned, other = weights_of(base), weights_of(moved(base, 1)), weights_of(moved(base, 2))
    back = rule_of(name, **WHOLE[name])(start, [tuned, start])
    assert back.keys() == start.keys()
    assert all(torch.equal(back[key], tuned[key]) and back[key].dtype == torch.float32 for key in start)
    none = rule_of(name, **NOTHING[name])(start, [tuned, other])
    assert all(torch.equal(none[key], start[key]) for key in start)


@pytest.mark.parametrize("name", WHOLE)
def test_models_that_moved_different_weights_are_both_there_whole(name: str) -> None:
    base = network()
    first, second = moved(base, 1, "attention"), moved(base, 2, "mlp")
    found = rule_of(name, **WHOLE[name])(weights_of(base), [weights_of(first), weights_of(second)])
    for key, value in found.items():
        assert torch.equal(value, weights_of(second if "mlp" in key else first)[key])


def test_linear_is_two_lora_additions_at_once() -> None:
    """Composing adapters: the merged weights answer as the base that carries both additions."""
    base, ids_BT = network("qwen3").eval(), torch.arange(12).view(2, 6)

    def with_lora(model: GPT, target: str) -> tuple[GPT, Any]:
        fields = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "rank_stabilised": False, "decompose": False}
        settings = plugins.settings_class("tuners", "lora")(**fields, targets=[target])
        model, tuner = copy.deepcopy(model), plugins.load("tuners", "lora").build(settings)
        generator = torch.Generator().manual_seed(7)
        tuner.apply(model, generator, list)
        with torch.no_grad():
            for parameter in tuner.groups(model)[0]["params"]:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        return model, tuner

    first, one = with_lora(base, "attention")
    second, two = with_lora(base, "mlp")
    tuned = [weights_of(one.merge(first)), weights_of(two.merge(second))]
    merged = copy.deepcopy(base)
    merged.load_state_dict(rule_of("linear", scales=[1.0, 1.0])(weights_of(base), tuned), strict=False)
    live, _ = with_lora(one.merge(first), "mlp")
    torch.testing.assert_close(merged(ids_BT), live(ids_BT), atol=1e-5, rtol=0)
    assert (merged(ids_BT) - base(ids_BT)).abs().max() > 1e-2


def test_linear_weighs_each_model() -> None:
    base, first, second = ({"x": torch.tensor(values)} for values in ([1.0, 1.0], [3.0, 1.0], [1.0, 5.0]))
    found = rule_of("linear", scales=[0.5, -1.0])(base, [first, second])
    assert found["x"].tolist() == [2.0, -3.0]


def test_ties_on_numbers_small_enough_for_paper() -> None:
    """The three steps in numbers: what is small goes, the heavier sign wins, only its side is averaged."""
    base = {"a": torch.ones(3), "b": torch.ones(3)}
    tau_1 = {"a": torch.tensor([4.0, -3.0, 0.1]), "b": torch.tensor([2.0, 1.0, 0.0])}
    tau_2 = {"a": torch.tensor([-1.0, -5.0, 3.0]), "b": torch.tensor([2.0, 0.2, 0.0])}
    models = [{key: base[key] + tau[key] for key in base} for tau in (tau_1, tau_2)]

    def tau(density: float, scale: float) -> list[float]:
        found = rule_of("ties", density=density, scale=scale)(base, models)
        return [round(value, 6) for key in base for value in (found[key] - base[key]).tolist()]

    # Half of six: 4, -3 and 2 stay of the first, -5, 3 and 2 of the second, wherever they stand.
    assert tau(0.5, 1.0) == [4.0, -4.0, 3.0, 2.0, 0.0, 0.0]
    assert tau(0.5, 0.5) == [2.0, -2.0, 1.5, 1.0, 0.0, 0.0]
    assert tau(1.0, 1.0) == [4.0, -4.0, 1.55, 2.0, 0.6, 0.0]
    # Nothing but the largest of each.
    assert tau(0.1, 1.0) == [4.0, -5.0, 0.0, 0.0, 0.0, 0.0]


def test_ties_leaves_alone_what_cancels_out() -> None:
    base, up, down = ({"x": torch.tensor([value])} for value in (1.0, 3.0, -1.0))
    assert rule_of("ties", density=1.0, scale=1.0)(base, [up, down])["x"].tolist() == [1.0]


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_ties_is_pefts(density: float) -> None:
    from peft.utils.merge_utils import ties

    generator = torch.Generator().manual_seed(5)
    tau_N = torch.randn(3, 50, 4, generator=generator)
    base = {"x": torch.zeros(50, 4)}
    ours = rule_of("ties", density=density, scale=1.0)(base, [{"x": tau} for tau in tau_N])["x"]
    torch.testing.assert_close(ours, ties(list(tau_N), torch.ones(3), density=density))


def test_the_comparison_says_how_far_and_how_much_against_each_other() -> None:
    base = {"x": torch.zeros(4), "score.weight": torch.zeros(1)}
    first = {"x": torch.tensor([3.0, 4.0, 0.0, 0.0]), "score.weight": torch.ones(1)}
    second = {"x": torch.tensor([-1.0, 0.0, 1.0, 0.0]), "score.weight": torch.ones(1)}
    found = comparison(base, first, second)
    assert found["task_norm_first"] == 5.0
    assert found["task_norm_second"] == pytest.approx(2**0.5)
    assert found["task_cosine"] == pytest.approx(-3 / 5 / 2**0.5)
    assert found["sign_conflict_share"] == 1.0  # of the one weight that both moved
    still = comparison(base, base, base)
    assert still["task_cosine"] == still["sign_conflict_share"] == 0.0
