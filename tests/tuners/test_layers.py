"""Tuner layers: exactly the chosen layers are trained."""

import pytest
import torch

from pipeline.errors import UserError
from pipeline.model.gpt import GPT
from pipeline.tuners.layers import Settings, build
from tests.models import shape

GENERATOR = torch.Generator()


def chosen(**changes: object) -> Settings:
    """Settings that train nothing but these changes and the head."""
    return Settings.model_validate({"last": 0, "first": 0, "pattern": None, "embeddings": False} | changes)


def model_of(tied: bool) -> GPT:
    config = shape("gpt2", n_layers=3, tie_embeddings=tied)
    model = GPT(config, GENERATOR)
    model.add_score(2, GENERATOR)
    return model


def trained(model: GPT) -> set[str]:
    """Names of the trained modules: blocks by number, all else by its first part."""
    return {
        ".".join(name.split(".")[: 2 if name.startswith("blocks") else 1])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("tied", [True, False])
def test_layers_trains_the_chosen_layers_alone(tied: bool) -> None:
    """Lost otherwise: the book's `last block` recipe would train something else."""
    model = model_of(tied)
    build(chosen(last=1, embeddings=False)).apply(model, GENERATOR, list)
    assert trained(model) == {"blocks.2", "final_norm", "score"}
    build(chosen(last=2, embeddings=True)).apply(model, GENERATOR, list)
    heads = set() if tied else {"head"}
    assert trained(model) == {"blocks.1", "blocks.2", "final_norm", "score", "embed", "positions"} | heads
    build(chosen(last=0, embeddings=False)).apply(model, GENERATOR, list)
    assert trained(model) == {"final_norm", "score"}


def test_layers_refuses_more_blocks_than_the_model_has() -> None:
    """Lost otherwise: `last: 12` on a small model would silently train everything."""
    with pytest.raises(UserError, match=r"tuner\.last is 4, the model has 3 blocks"):
        build(chosen(last=4, embeddings=False)).apply(model_of(True), GENERATOR, list)
    with pytest.raises(UserError, match=r"tuner\.first is 4, the model has 3 blocks"):
        build(chosen(first=4)).apply(model_of(True), GENERATOR, list)


def test_layers_trains_the_first_blocks_or_weights_by_name() -> None:
    model = model_of(False)
    build(chosen(first=1)).apply(model, GENERATOR, list)
    assert trained(model) == {"blocks.0", "score"}
    build(chosen(pattern=r"blocks\.[02]\.mlp")).apply(model, GENERATOR, list)
    assert trained(model) == {"blocks.0", "blocks.2", "score"}
    assert not model.blocks[0].attention.out.weight.requires_grad
    assert model.blocks[0].mlp.up.weight.requires_grad


@pytest.mark.parametrize(
    ("pattern", "words"), [("mpl", "matches no weight; the weights' names are"), ("(", "a regular")]
)
def test_layers_refuses_a_pattern_that_is_invalid_or_matches_no_weight(pattern: str, words: str) -> None:
    """Lost otherwise: a typo would train the head alone."""
    with pytest.raises(UserError, match=words):
        build(chosen(pattern=pattern)).apply(model_of(True), GENERATOR, list)
