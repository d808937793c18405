"""device.py: device, precision and weights cast once."""

import pytest
import torch

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model.device import autocast, lowered, set_up
from pipeline.tuners.lora import LoRALinear, Settings
from tests.models import network

CPU = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)


def test_set_up_names_a_missing_gpu() -> None:
    if torch.cuda.is_available():
        assert set_up(CPU.model_copy(update={"device": "cuda"})).type == "cuda"
    else:
        with pytest.raises(UserError, match="torch finds no GPU"):
            set_up(CPU.model_copy(update={"device": "cuda"}))


def test_autocast_follows_the_precision() -> None:
    a = torch.ones(4, 4)
    with autocast(CPU):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU.model_copy(update={"precision": "bfloat16"})):
        assert (a @ a).dtype == torch.bfloat16


LOWER = CPU.model_copy(update={"precision": "bfloat16"})


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.parametrize("decompose", [False, True])
def test_lowered_gives_the_bits_of_autocast(family: str, decompose: bool) -> None:
    """Beside an adapter that reads the float32 weight too, and a head that shares its weight with the embedding."""
    model = network(family=family, tie_embeddings=True).eval()
    adapter = Settings(
        rank=2, alpha=4.0, dropout=0.0, targets=["mlp"], rank_stabilised=False, decompose=decompose,
        merged=True,
    )  # fmt: skip
    model.blocks[0].mlp.up = LoRALinear(model.blocks[0].mlp.up, adapter)
    model.blocks[0].mlp.up.initialise(torch.Generator().manual_seed(5))
    torch.nn.init.normal_(model.blocks[0].mlp.up.lora_B, generator=torch.Generator().manual_seed(6))
    ids, kept = torch.arange(12).view(2, 6), dict(model.named_parameters())
    with torch.no_grad(), autocast(LOWER):
        wanted = model(ids)
    with torch.no_grad(), lowered(model, LOWER):
        exact = torch.float32 if decompose else torch.bfloat16
        assert model.blocks[0].mlp.up.base.weight.dtype == exact
        assert model.head.weight.dtype == model.blocks[1].mlp.down.weight.dtype == torch.bfloat16
        assert model.embed.weight.dtype == torch.float32
        found = model(ids)
    assert torch.equal(found, wanted)
    assert not torch.equal(found, model(ids))  # float32
    assert {name: id(p) for name, p in model.named_parameters()} == {name: id(p) for name, p in kept.items()}


def test_lowered_restores_weights_after_an_error_and_leaves_float32_alone() -> None:
    model = network()
    weight = model.blocks[0].mlp.down.weight
    with pytest.raises(ZeroDivisionError), lowered(model, LOWER):
        raise ZeroDivisionError
    assert model.blocks[0].mlp.down.weight is weight
    with lowered(model, CPU):
        assert model.blocks[0].mlp.down.weight is weight
        assert not torch.is_autocast_enabled("cpu")
