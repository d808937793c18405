"""What every tuner promises, tested for each file in the folder the day it arrives."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import plugins
from pipeline.config.recipe import HEADLESS
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from tests.models import network

LORA = {
    "rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": ["attention", "mlp"], "rank_stabilised": False,
    "decompose": False,
}  # fmt: skip
LAYERS = {"last": 1, "first": 0, "pattern": None, "embeddings": False}
# The sibling's name, what varies behind a comma -> its settings.
SETTINGS: dict[str, dict[str, Any]] = {
    "bottleneck": {"width": 4},
    "full": {},
    "gradual": {"unfrozen_after": 0.5, "rate_divisor": 2.6},
    "ia3": {},
    "layers": LAYERS,
    "layers, by name": LAYERS | {"last": 0, "pattern": "mlp"},
    "layers, first": LAYERS | {"last": 0, "first": 1},
    "lora": LORA,
    "lora, rank stabilised": LORA | {"rank_stabilised": True},
    "lora, decomposed": LORA | {"decompose": True},
    "prefix": {"virtual_tokens": 3, "hidden": 8},
    "prefix, direct": {"virtual_tokens": 3, "hidden": None},
    "prompt": {"virtual_tokens": 5, "text": "abc"},
}
DRAWN = ("bottleneck", "lora", "prefix")
FAMILIES = ("gpt2", "llama", "qwen3", "arcee", "nanochat")
HEADS = [(family, score) for family in FAMILIES for score in (False, True) if not (score and family in HEADLESS)]


def encode(text: str) -> list[int]:
    """A letter, a token."""
    return [ord(letter) % 30 for letter in text]


def model_of(family: str, score: bool) -> GPT:
    model = network(family, labels=3 if score else 0, tie_embeddings=False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that a few steps of a few vectors show
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def tuner_of(name: str) -> Any:
    sibling = name.partition(",")[0]
    return plugins.load("tuners", sibling).build(plugins.settings_class("tuners", sibling)(**SETTINGS[name]))


def out_of(model: GPT, ids_BT: torch.Tensor) -> torch.Tensor:
    return model(ids_BT) if model.score is None else model.classify(ids_BT)


def test_every_tuner_is_tested_here() -> None:
    """Lost otherwise: a new tuner would arrive untested."""
    assert sorted({name.partition(",")[0] for name in SETTINGS}) == plugins.choices("tuners")


@pytest.mark.parametrize(("family", "score"), HEADS)
@pytest.mark.parametrize("name", SETTINGS)
def test_tuning_moves_what_its_groups_say_and_what_is_saved_answers_alike(
    name: str, family: str, score: bool, tmp_path: Path
) -> None:
    """Lost otherwise: frozen weights would drift, or the exported model differ from the trained one."""
    model, tuner, ids_BT = model_of(family, score), tuner_of(name), torch.arange(12).view(2, 6)
    plain = copy.deepcopy(model)
    tuner.apply(model, torch.Generator().manual_seed(3), encode)
    if model.virtual is None:  # virtual tokens are seen from the first step on; everything else starts unchanged
        torch.testing.assert_close(out_of(model, ids_BT), out_of(plain, ids_BT), atol=1e-6, rtol=0)
    groups = tuner.groups(model)
    moving = {id(p) for group in groups for p in group["params"]}
    assert moving == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(group["factor"] > 0 for group in groups)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for group in groups for p in group["params"]], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        out_of(model, ids_BT).square().mean().backward()
        optimizer.step()
    names = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    still = [key for key, old in before.items() if not names[key] and not torch.equal(old, model.state_dict()[key])]
    assert not still
    trained = out_of(model, ids_BT)
    assert (trained - out_of(plain, ids_BT)).abs().max() > 1e-3
    merged = tuner.merge(model)
    assert set(merged.state_dict()) == set(plain.state_dict())
    assert all(p.requires_grad for p in merged.parameters())
    checkpoint.save(
        merged,
        tmp_path / "model",
        tokenizer=None,
        labels=["a", "b", "c"] if score else None,
        adapter=(lambda folder: tuner.save_adapter(model, folder, None)) if tuner.state(model) else None,
    )
    read = checkpoint.load(tmp_path / "model")
    torch.testing.assert_close(out_of(read, ids_BT), trained, atol=1e-5, rtol=0)
    torch.testing.assert_close(out_of(model, ids_BT), trained, atol=0, rtol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_generator_gives_the_same_start(name: str) -> None:
    """Lost otherwise: two clean runs of a recipe would differ."""
    models = [model_of("llama", True) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        tuner_of(name).apply(model, torch.Generator().manual_seed(seed), encode)
    first, second, other = ([p.detach() for p in model.parameters()] for model in models)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, other)) == (not name.startswith(DRAWN))
