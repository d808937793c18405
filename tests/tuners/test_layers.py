"""Exactly the named end of the network moves."""

import pytest
import torch

from pipeline.config import UserError
from pipeline.model.gpt import GPT
from pipeline.tuners.layers import Settings, build
from tests.models import shape

GENERATOR = torch.Generator()


def model_of(tied: bool) -> GPT:
    config = shape("gpt2", n_layers=3, tie_embeddings=tied)
    model = GPT(config, GENERATOR)
    model.add_score(2, GENERATOR)
    return model


def moving(model: GPT) -> set[str]:
    """Names of what moves, cut to the module that matters."""
    return {
        ".".join(name.split(".")[: 2 if name.startswith("blocks") else 1])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_named_layers_move(tied: bool) -> None:
    """Lost otherwise: the book's `last block` recipe would train something else."""
    model = model_of(tied)
    build(Settings(last=1, embeddings=False)).apply(model, GENERATOR, list)
    assert moving(model) == {"blocks.2", "final_norm", "score"}
    build(Settings(last=2, embeddings=True)).apply(model, GENERATOR, list)
    heads = set() if tied else {"head"}
    assert moving(model) == {"blocks.1", "blocks.2", "final_norm", "score", "embed", "positions"} | heads
    build(Settings(last=0, embeddings=False)).apply(model, GENERATOR, list)
    assert moving(model) == {"final_norm", "score"}


def test_more_layers_than_there_are_is_an_error() -> None:
    """Lost otherwise: `last: 12` on a small model would silently train everything."""
    with pytest.raises(UserError, match=r"tuner\.last is 4, the model has 3 blocks"):
        build(Settings(last=4, embeddings=False)).apply(model_of(True), GENERATOR, list)
