"""How much each example counts: a wrong weight trains on other data than the user believes."""

from typing import Any

import pytest
import torch

from pipeline import plugins
from pipeline.config import UserError

SETTINGS: dict[str, dict[str, Any]] = {
    "classes": {"weights": {"ham": 1.0, "spam": 3.0}},
    "focal": {"gamma": 2.0},
    "uniform": {},
}
LOSSES_B = torch.tensor([0.0, 0.7, 3.0], requires_grad=True)
BATCH = {"targets": torch.tensor([0, 1, 1])}


def weights_of(name: str, labels: list[str] | None = None, **changes: Any) -> torch.Tensor:
    settings = plugins.settings_class("weighting", name)(**SETTINGS[name] | changes)
    rule = plugins.load("weighting", name).build(settings, ["ham", "spam"] if labels is None else labels)
    return rule(LOSSES_B, BATCH)


def test_every_rule_is_tested_here() -> None:
    assert sorted(SETTINGS) == plugins.choices("weighting")


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_are_constants_of_the_step(name: str) -> None:
    """A weight that carries a gradient would be minimised itself: the model would learn to be weighed less."""
    found = weights_of(name)
    assert found.shape == LOSSES_B.shape
    assert not found.requires_grad
    assert bool((found > 0).all())


def test_focal_is_equation_4() -> None:
    torch.testing.assert_close(weights_of("focal"), ((1 - torch.exp(-LOSSES_B.detach())) ** 2).clamp(min=1e-12))
    torch.testing.assert_close(weights_of("focal", gamma=0.0), torch.ones(3))
    assert bool((weights_of("focal", gamma=9.0) > 0).all())  # an example that is quite right still divides by no zero


def test_classes_weigh_by_label() -> None:
    assert weights_of("classes").tolist() == [1.0, 3.0, 3.0]
    with pytest.raises(UserError, match=r"names ham, spam; the labels of the data are ham, scam"):
        weights_of("classes", ["ham", "scam"])
    for fields in ({}, {"weights": {}}):
        with pytest.raises(UserError, match="it is for labelled records"):
            weights_of("classes", [], **fields)
