"""Example weights: a wrong weight trains on other data than the user believes."""

from typing import Any

import pytest
import torch

from pipeline.contracts import Batch, Learner
from pipeline.errors import UserError
from tests.fakes import labelled
from tests.learners import chat_learner, classifier
from tests.variants import Variant, build, variants

WEIGHTINGS = variants("weighting")


def weighting_of(name: str, learner: Learner | None = None, **changes: Any) -> Any:
    return build("weighting", name, learner or classifier(), **changes)


def batch_of(learner: Learner, rows: list[int]) -> Batch:
    return learner.batch(rows) | {"rows": torch.tensor(rows)}


LOSSES = torch.tensor([0.0, 0.7, 3.0])


def weights_of(name: str, **changes: Any) -> torch.Tensor:
    learner = classifier()
    weights: torch.Tensor = weighting_of(name, learner, **changes).weights(LOSSES, batch_of(learner, [1, 0, 2]))
    return weights


@pytest.mark.parametrize("variant", WEIGHTINGS, ids=str)
def test_every_weighting_gives_weights_without_gradients_and_not_negative(variant: Variant) -> None:
    """A weight with a gradient would itself be minimised."""
    learner = classifier()
    losses = LOSSES.clone().requires_grad_(True)
    weights = variant.build(learner).weights(losses, batch_of(learner, [1, 0, 2]))
    assert weights.shape == (3,)
    assert not weights.requires_grad
    assert bool((weights >= 0).all())


def test_focal_gives_the_weights_of_equation_4() -> None:
    losses = torch.tensor([0.0, 0.7, 3.0])
    torch.testing.assert_close(weights_of("focal"), ((1 - torch.exp(-losses)) ** 2).clamp(min=1e-12))
    torch.testing.assert_close(weights_of("focal", gamma=0.0), torch.ones(3))
    assert bool((weights_of("focal", gamma=9.0) > 0).all())  # weights of a batch without loss must not sum to zero


def test_classes_gives_each_example_the_weight_of_its_label() -> None:
    assert weights_of("classes").tolist() == [1.0, 3.0, 3.0]
    with pytest.raises(UserError, match=r"names ham, scam; the labels of the data are ham, spam"):
        weighting_of("classes", weights={"ham": 1.0, "scam": 1.0})
    with pytest.raises(UserError, match="it is for labelled records"):
        weighting_of("classes", chat_learner())


def test_reweight_measures_the_product_of_gradients() -> None:
    """Algorithm 1 of Ren et al.: the slope is <own gradient, clean gradient>, computed per example here."""
    learner = classifier()
    weighting = weighting_of("reweight", learner)
    batch = batch_of(learner, [2, 3, 4, 5])
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    torch.manual_seed(3)
    clean = weighting._clean_gradients(learner.trainable_parameters())
    slopes = weighting._slopes(batch, clean)
    learner.model.eval()
    for row, slope in enumerate(slopes):
        learner.model.zero_grad()
        learner.losses(batch)[row].backward()
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.trainable_parameters()]
        exact = sum(float((a * b).sum()) for a, b in zip(own, clean, strict=True))
        assert float(slope) == pytest.approx(exact, rel=0.02, abs=0.02 * float(slopes.abs().max()))
    assert all(torch.equal(before[name], p) for name, p in learner.model.named_parameters())


def weights_after_training(rate: float, relative: bool) -> list[float]:
    """Weights of four untrusted messages; the middle two have the wrong label."""
    said = [("ödül", "spam"), ("gel", "ham"), ("ödül", "spam"), ("ödül", "ham"), ("gel", "spam"), ("gel", "ham")]
    messages = [labelled(text, label, source="found" if i > 1 else "trusted") for i, (text, label) in enumerate(said)]
    learner = classifier(messages=messages)
    weighting = weighting_of("reweight", learner)
    if not relative:
        weighting._relative = lambda slopes, batch: slopes
    optimizer = torch.optim.Adam(learner.trainable_parameters(), lr=rate)
    torch.manual_seed(0)
    for _ in range(60):
        batch = batch_of(learner, [2, 3, 4, 5])
        losses = learner.losses(batch)
        weights = weighting.weights(losses, batch)
        ((weights * losses).sum() / weights.sum().clamp(min=1e-12)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert weighting.memory["seen"].tolist() == [0, 0, 60, 60, 60, 60]
    return weighting.memory["weight"][2:].tolist()


def test_reweight_remembers_late_weights_more_than_early_ones() -> None:
    """Lost otherwise: weights by a model that had learned nothing would persist."""
    weighting = weighting_of("reweight", classifier())
    for weight in (4.0, 2.0, 1.0):
        weighting._remember(torch.tensor([1]), torch.tensor([weight]))
    assert weighting.memory["weight"].tolist()[:2] == [0.0, ((4 + 2) / 2 + 1) / 2]
    assert weighting.memory["seen"].tolist()[:2] == [0, 3]


@pytest.mark.parametrize("rate", [3e-3, 1e-2])
def test_reweight_gives_wrong_labels_small_weights(rate: float) -> None:
    """Lost otherwise: wrong labels would weigh as much as correct ones."""
    right, wrong, wrong_too, right_too = weights_after_training(rate, relative=True)
    assert wrong + wrong_too < 0.5 * (right + right_too)


def test_reweight_finds_no_wrong_labels_when_slopes_are_not_relative_to_their_label() -> None:
    """The reason for the difference from the paper."""
    right, wrong, wrong_too, right_too = weights_after_training(1e-2, relative=False)
    assert wrong + wrong_too > 0.8 * (right + right_too)


def test_reweight_refuses_records_without_clean_ones() -> None:
    with pytest.raises(UserError, match=r"weighting.clean names gold; column 'source' holds found, trusted"):
        weighting_of("reweight", clean="gold")


@pytest.mark.parametrize("variant", [v for v in WEIGHTINGS if v.build(classifier()).by_example], ids=str)
def test_every_weighting_by_example_gives_the_same_weight_alone_and_in_a_batch(variant: Variant) -> None:
    """Lost otherwise: private training would accept a weight that depends on other people's records."""
    learner = classifier()
    weighting = variant.build(learner)
    together = weighting.weights(LOSSES, batch_of(learner, [1, 0, 2]))
    alone = [weighting.weights(LOSSES[i : i + 1], batch_of(learner, [row])) for i, row in enumerate([1, 0, 2])]
    torch.testing.assert_close(torch.cat(alone), together)


def test_reweight_is_not_by_example() -> None:
    """It depends on the batch and on clean records of others."""
    assert not weighting_of("reweight").by_example
