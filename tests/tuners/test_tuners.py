"""Every tuner in the folder: frozen weights stay, the merged or saved model gives the trained model's outputs."""

import copy
from pathlib import Path

import pytest
import torch

from pipeline.config.recipe import HEADLESS
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from tests.models import network
from tests.variants import Variant, variants

TUNERS = variants("tuners")
FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
HEADS = [(family, score) for family in FAMILIES for score in (False, True) if not (score and family in HEADLESS)]


def encode(text: str) -> list[int]:
    """One token per letter."""
    return [ord(letter) % 30 for letter in text]


def model_of(family: str, score: bool) -> GPT:
    model = network(family, labels=3 if score else 0, tie_embeddings=False)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that a few updates of a few vectors change the output
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def output(model: GPT, ids_BT: torch.Tensor) -> torch.Tensor:
    return model(ids_BT) if model.score is None else model.classify(ids_BT)


@pytest.mark.parametrize(("family", "score"), HEADS)
@pytest.mark.parametrize("variant", TUNERS, ids=str)
def test_every_tuner_trains_its_groups_alone_and_its_saved_model_gives_the_trained_outputs(
    variant: Variant, family: str, score: bool, tmp_path: Path
) -> None:
    """Lost otherwise: frozen weights would drift, or the exported model differ from the trained one."""
    model, tuner, ids_BT = model_of(family, score), variant.build(), torch.arange(12).view(2, 6)
    plain = copy.deepcopy(model)
    try:
        tuner.apply(model, torch.Generator().manual_seed(3), encode)
    except UserError as error:  # a tuner may refuse a family; the recipe's stage shows the reason
        pytest.skip(f"refuses {family}: {error}")
    if model.virtual is None:  # virtual tokens are attended to from the first update on; all else starts unchanged
        torch.testing.assert_close(output(model, ids_BT), output(plain, ids_BT), atol=1e-6, rtol=0)
    groups = tuner.groups(model)
    trained_ids = {id(p) for group in groups for p in group["params"]}
    assert trained_ids == {id(p) for p in model.parameters() if p.requires_grad}
    if not trained_ids:  # norms without weights, for example; training refuses such a recipe
        pytest.skip(f"trains no weight of {family}")
    assert all(group["factor"] > 0 for group in groups)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for group in groups for p in group["params"]], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        output(model, ids_BT).square().mean().backward()
        optimizer.step()
    trainable = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    after = model.state_dict()
    assert not [key for key, old in before.items() if not trainable[key] and not torch.equal(old, after[key])]
    trained = output(model, ids_BT)
    assert (trained - output(plain, ids_BT)).abs().max() > 1e-3
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
    loaded = checkpoint.load(tmp_path / "model")
    torch.testing.assert_close(output(loaded, ids_BT), trained, atol=1e-5, rtol=0)
    torch.testing.assert_close(output(model, ids_BT), trained, atol=0, rtol=0)


@pytest.mark.parametrize("variant", TUNERS, ids=str)
def test_every_tuner_starts_alike_from_the_same_generator(variant: Variant) -> None:
    """Lost otherwise: two clean runs of a recipe would differ."""
    models = [model_of("llama", True) for _ in range(3)]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    before = generators[0].get_state()
    for model, generator in zip(models, generators, strict=True):
        variant.build().apply(model, generator, encode)
    draws = not torch.equal(generators[0].get_state(), before)
    first, second, other = ([p.detach() for p in model.parameters()] for model in models)
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, other)) == (not draws)
