"""How much each example counts: a wrong weight trains on other data than the user believes."""

from typing import Any

import pytest
import torch

from pipeline.config import plugins
from pipeline.contracts import Batch, Learner
from pipeline.errors import UserError
from tests.fakes import labelled
from tests.learners import classifier, talker

SETTINGS: dict[str, dict[str, Any]] = {
    "classes": {"weights": {"ham": 1.0, "spam": 3.0}},
    "focal": {"gamma": 2.0},
    "reweight": {"column": "source", "clean": "trusted", "clean_batch": 8},
    "uniform": {},
}


def rule_of(name: str, learner: Learner | None = None, **changes: Any) -> Any:
    settings = plugins.settings_class("weighting", name)(**SETTINGS[name] | changes)
    return plugins.load("weighting", name).build(settings, learner or classifier())


def batch_of(learner: Learner, rows: list[int]) -> Batch:
    return learner.batch(rows) | {"rows": torch.tensor(rows)}


def weights_of(name: str, **changes: Any) -> torch.Tensor:
    learner = classifier()
    batch = batch_of(learner, [1, 0, 2])
    found: torch.Tensor = rule_of(name, learner, **changes).weights(
        torch.tensor([0.0, 0.7, 3.0], requires_grad=True), batch
    )
    return found


def test_every_rule_is_tested_here() -> None:
    assert sorted(SETTINGS) == plugins.choices("weighting")


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_are_constants_of_the_step(name: str) -> None:
    """A weight that carries a gradient would be minimised itself: the model would learn to be weighed less."""
    found = weights_of(name)
    assert found.shape == (3,)
    assert not found.requires_grad
    assert bool((found >= 0).all())


def test_focal_is_equation_4() -> None:
    losses = torch.tensor([0.0, 0.7, 3.0])
    torch.testing.assert_close(weights_of("focal"), ((1 - torch.exp(-losses)) ** 2).clamp(min=1e-12))
    torch.testing.assert_close(weights_of("focal", gamma=0.0), torch.ones(3))
    assert bool((weights_of("focal", gamma=9.0) > 0).all())  # an example that is quite right still divides by no zero


def test_classes_weigh_by_label() -> None:
    assert weights_of("classes").tolist() == [1.0, 3.0, 3.0]
    with pytest.raises(UserError, match=r"names ham, scam; the labels of the data are ham, spam"):
        rule_of("classes", weights={"ham": 1.0, "scam": 1.0})
    with pytest.raises(UserError, match="it is for labelled records"):
        rule_of("classes", talker())


def test_reweighting_is_the_product_of_gradients() -> None:
    """Algorithm 1 of Ren et al.: the measured slope must be <own gradient, clean gradient>, taken one by one here."""
    learner = classifier()
    rule = rule_of("reweight", learner)
    batch = batch_of(learner, [2, 3, 4, 5])
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    torch.manual_seed(3)
    slopes = rule._slopes(batch)
    torch.manual_seed(3)
    learner.model.eval()
    clean = rule._clean_gradients(learner.moving())
    for row, slope in enumerate(slopes):
        learner.model.zero_grad()
        learner.losses(batch)[row].backward()
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.moving()]
        exact = sum(float((a * b).sum()) for a, b in zip(own, clean, strict=True))
        assert float(slope) == pytest.approx(exact, rel=0.02, abs=0.02 * float(slopes.abs().max()))
    assert all(torch.equal(before[name], p) for name, p in learner.model.named_parameters())


def judged(rate: float, relative: bool) -> list[float]:
    """Weights of the four found messages, of which the middle two say the opposite of the trusted ones."""
    said = [("ödül", "spam"), ("gel", "ham"), ("ödül", "spam"), ("ödül", "ham"), ("gel", "spam"), ("gel", "ham")]
    messages = [labelled(text, label, source="found" if i > 1 else "trusted") for i, (text, label) in enumerate(said)]
    learner = classifier(messages=messages)
    rule = rule_of("reweight", learner)
    if not relative:
        rule._relative = lambda slopes, batch: slopes
    optimizer = torch.optim.Adam(learner.moving(), lr=rate)
    torch.manual_seed(0)
    for _ in range(60):
        batch = batch_of(learner, [2, 3, 4, 5])
        losses = learner.losses(batch)
        weights = rule.weights(losses, batch)
        ((weights * losses).sum() / weights.sum().clamp(min=1e-12)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert rule.memory["seen"].tolist() == [0, 0, 60, 60, 60, 60]
    return rule.memory["weight"][2:].tolist()


def test_what_was_judged_later_counts_more() -> None:
    """Lost otherwise: what a model without knowledge said of a record would stay on its account."""
    rule = rule_of("reweight", classifier())
    for weight in (4.0, 2.0, 1.0):
        rule._remember(torch.tensor([1]), torch.tensor([weight]))
    assert rule.memory["weight"].tolist()[:2] == [0.0, ((4 + 2) / 2 + 1) / 2]
    assert rule.memory["seen"].tolist()[:2] == [0, 3]


@pytest.mark.parametrize("rate", [3e-3, 1e-2])
def test_reweighting_finds_the_wrong_labels(rate: float) -> None:
    """Lost otherwise: the two that say the opposite of the trusted ones would count like all others."""
    right, wrong, wrong_too, right_too = judged(rate, relative=True)
    assert wrong + wrong_too < 0.5 * (right + right_too)


def test_without_comparing_within_a_label_the_model_swings() -> None:
    """Why this differs from the paper: at a usual rate a small batch finds nothing otherwise."""
    right, wrong, wrong_too, right_too = judged(1e-2, relative=False)
    assert wrong + wrong_too > 0.8 * (right + right_too)


def test_reweighting_needs_clean_records() -> None:
    with pytest.raises(UserError, match=r"weighting.clean names gold; column 'source' holds found, trusted"):
        rule_of("reweight", clean="gold")


@pytest.mark.parametrize("name", SETTINGS)
def test_a_rule_by_example_weighs_each_as_if_it_were_alone(name: str) -> None:
    """Lost otherwise: private training would take a weight that tells of other people's records."""
    learner, losses = classifier(), torch.tensor([0.0, 0.7, 3.0])
    rule = rule_of(name, learner)
    if rule.by_example:
        alone = [rule.weights(losses[i : i + 1], batch_of(learner, [row])) for i, row in enumerate([1, 0, 2])]
        torch.testing.assert_close(torch.cat(alone), rule.weights(losses, batch_of(learner, [1, 0, 2])))
    assert rule.by_example == (name != "reweight")
