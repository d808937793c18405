"""Merging methods: a wrong sum would be served as the two models that were trained."""

import copy
from typing import Any

import pytest
import torch

from pipeline.merging import comparison
from pipeline.model.gpt import GPT
from tests import variants
from tests.merging.models import fine_tuned, weights_of
from tests.models import network
from tests.variants import Variant

# Settings under which a method keeps both task vectors whole, and settings under which it drops them.
WHOLE: dict[str, dict[str, Any]] = {"linear": {"scales": [1.0, 1.0]}, "ties": {"density": 1.0, "scale": 1.0}}
NOTHING: dict[str, dict[str, Any]] = {"linear": {"scales": [0.0, 0.0]}, "ties": {"density": 0.5, "scale": 0.0}}


def method_of(name: str, **settings: Any) -> Any:
    return variants.build("merging", name, **settings)


@pytest.mark.parametrize("variant", variants.variants("merging"), ids=str)
def test_every_method_gives_the_base_when_nothing_was_changed_and_is_deterministic(variant: Variant) -> None:
    """To the last bit: a method that changes an untouched weight would change knowledge that no training changed."""
    base = network()
    start, first, second = weights_of(base), weights_of(fine_tuned(base, 1)), weights_of(fine_tuned(base, 2))
    unchanged = variant.build()(start, [start, start])
    assert unchanged.keys() == start.keys()
    assert all(torch.equal(unchanged[key], start[key]) for key in start)
    merged, again = (variant.build()(start, [first, second]) for _ in range(2))
    assert all(torch.equal(merged[key], again[key]) for key in start)
    assert all(merged[key].dtype == torch.float32 and merged[key].shape == start[key].shape for key in start)
    assert any(not torch.equal(merged[key], start[key]) for key in start)


@pytest.mark.parametrize("name", WHOLE)
def test_a_method_gives_the_model_when_merged_with_its_base_and_the_base_when_nothing_is_added(name: str) -> None:
    """To the last bit."""
    base = network()
    start, tuned, other = weights_of(base), weights_of(fine_tuned(base, 1)), weights_of(fine_tuned(base, 2))
    back = method_of(name, **WHOLE[name])(start, [tuned, start])
    assert back.keys() == start.keys()
    assert all(torch.equal(back[key], tuned[key]) and back[key].dtype == torch.float32 for key in start)
    none = method_of(name, **NOTHING[name])(start, [tuned, other])
    assert all(torch.equal(none[key], start[key]) for key in start)


@pytest.mark.parametrize("name", WHOLE)
def test_a_method_keeps_both_changes_when_they_are_of_different_weights(name: str) -> None:
    base = network()
    first, second = fine_tuned(base, 1, "attention"), fine_tuned(base, 2, "mlp")
    found = method_of(name, **WHOLE[name])(weights_of(base), [weights_of(first), weights_of(second)])
    for key, value in found.items():
        assert torch.equal(value, weights_of(second if "mlp" in key else first)[key])


def test_linear_equals_two_lora_adapters_at_once() -> None:
    """The merged weights give the outputs of the base with both adapters."""
    base, ids_BT = network("qwen3").eval(), torch.arange(12).view(2, 6)

    def with_lora(model: GPT, target: str) -> tuple[GPT, Any]:
        fields = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "rank_stabilised": False, "decompose": False, "merged": True}
        model, tuner = copy.deepcopy(model), variants.build("tuners", "lora", **fields, targets=[target])
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
    merged.load_state_dict(method_of("linear", scales=[1.0, 1.0])(weights_of(base), tuned), strict=False)
    live, _ = with_lora(one.merge(first), "mlp")
    torch.testing.assert_close(merged(ids_BT), live(ids_BT), atol=1e-5, rtol=0)
    assert (merged(ids_BT) - base(ids_BT)).abs().max() > 1e-2


def test_linear_scales_each_task_vector() -> None:
    base, first, second = ({"x": torch.tensor(values)} for values in ([1.0, 1.0], [3.0, 1.0], [1.0, 5.0]))
    found = method_of("linear", scales=[0.5, -1.0])(base, [first, second])
    assert found["x"].tolist() == [2.0, -3.0]


def test_ties_trims_elects_and_averages_as_by_hand() -> None:
    """Small entries are trimmed, the sign of the larger sum wins, entries of that sign alone are averaged."""
    base = {"a": torch.ones(3), "b": torch.ones(3)}
    tau_1 = {"a": torch.tensor([4.0, -3.0, 0.1]), "b": torch.tensor([2.0, 1.0, 0.0])}
    tau_2 = {"a": torch.tensor([-1.0, -5.0, 3.0]), "b": torch.tensor([2.0, 0.2, 0.0])}
    models = [{key: base[key] + tau[key] for key in base} for tau in (tau_1, tau_2)]

    def tau(density: float, scale: float) -> list[float]:
        found = method_of("ties", density=density, scale=scale)(base, models)
        return [round(value, 6) for key in base for value in (found[key] - base[key]).tolist()]

    # Half of six: 4, -3 and 2 stay of the first, -5, 3 and 2 of the second, wherever they stand.
    assert tau(0.5, 1.0) == [4.0, -4.0, 3.0, 2.0, 0.0, 0.0]
    assert tau(0.5, 0.5) == [2.0, -2.0, 1.5, 1.0, 0.0, 0.0]
    assert tau(1.0, 1.0) == [4.0, -4.0, 1.55, 2.0, 0.6, 0.0]
    # The largest entry of each alone.
    assert tau(0.1, 1.0) == [4.0, -5.0, 0.0, 0.0, 0.0, 0.0]


def test_ties_keeps_the_base_where_changes_cancel() -> None:
    base, up, down = ({"x": torch.tensor([value])} for value in (1.0, 3.0, -1.0))
    assert method_of("ties", density=1.0, scale=1.0)(base, [up, down])["x"].tolist() == [1.0]


@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_ties_equals_peft(density: float) -> None:
    from peft.utils.merge_utils import ties

    generator = torch.Generator().manual_seed(5)
    tau_N = torch.randn(3, 50, 4, generator=generator)
    base = {"x": torch.zeros(50, 4)}
    ours = method_of("ties", density=density, scale=1.0)(base, [{"x": tau} for tau in tau_N])["x"]
    torch.testing.assert_close(ours, ties(list(tau_N), torch.ones(3), density=density))


def test_comparison_gives_norms_cosine_and_sign_conflicts() -> None:
    base = {"x": torch.zeros(4), "score.weight": torch.zeros(1)}
    first = {"x": torch.tensor([3.0, 4.0, 0.0, 0.0]), "score.weight": torch.ones(1)}
    second = {"x": torch.tensor([-1.0, 0.0, 1.0, 0.0]), "score.weight": torch.ones(1)}
    found = comparison(base, first, second)
    assert found["task_norm_first"] == 5.0
    assert found["task_norm_second"] == pytest.approx(2**0.5)
    assert found["task_cosine"] == pytest.approx(-3 / 5 / 2**0.5)
    assert found["sign_conflict_share"] == 1.0  # of the one weight that both changed
    still = comparison(base, base, base)
    assert still["task_cosine"] == still["sign_conflict_share"] == 0.0
