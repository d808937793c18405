"""Rows for new tokens: old logits stay, new ones start from their parts, and the saved folder has the new size."""

from pathlib import Path

import pytest
import torch

from pipeline import config, tokenizer
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.extension import extend
from pipeline.paths import CODE as ROOT
from pipeline.tokenizer import Tokenizer
from pipeline.training import start
from tests import hostile
from tests.model import library_models
from tests.models import network

PARTS = {60: (3, 5), 61: (7, 8, 9), 62: (3, 3)}


@pytest.mark.parametrize("tied", [True, False])
def test_extend_keeps_old_logits_and_averages_new_rows(tied: bool) -> None:
    """The loss on old text would change before anything was trained."""
    model = network("llama", vocab_size=60, tie_embeddings=tied)
    ids = torch.tensor([[1, 4, 9, 50, 2]])
    before = model(ids)
    assert extend(model, PARTS) is model
    after = model(ids)
    assert after.shape == (1, 5, 63)
    torch.testing.assert_close(after[..., :60], before)
    torch.testing.assert_close(after[..., 61], before[..., 7:10].mean(-1))
    torch.testing.assert_close(model.embed.weight[60], (model.embed.weight[3] + model.embed.weight[5]) / 2)
    assert model.head is not None
    assert (model.head.weight is model.embed.weight) == tied
    assert model.config.vocab_size == 63


def test_extend_uses_spare_rows_of_a_padded_vocabulary() -> None:
    """Padding a vocabulary to a round size is usual; its spare rows are random."""
    model = network("llama", vocab_size=64)
    extend(model, PARTS)
    assert model.config.vocab_size == len(model.embed.weight) == 64
    torch.testing.assert_close(model.embed.weight[62], model.embed.weight[3])


def test_extend_keeps_a_model_of_an_unchanged_vocabulary() -> None:
    model = network("llama", vocab_size=60)
    weight = model.embed.weight
    assert extend(model, {}).embed.weight is weight


def test_extend_refuses_the_vocabulary_of_another_model() -> None:
    """Rows without a meaning would lie between the old and the new ones."""
    with pytest.raises(UserError, match=r"pretrain.start: the model has 50 token embeddings, .* extends has 60 ids"):
        extend(network("llama", vocab_size=50), PARTS)


@pytest.mark.parametrize("name", ["bert", "t5", "gemma", "phi"])
def test_extend_grows_models_of_transformers(name: str, tmp_path: Path) -> None:
    """An encoder or a decoder of another architecture would have no rows for the new tokens."""
    model = checkpoint.load(library_models.written(name, tmp_path / "model"))
    old = model.embed.weight.detach().clone()
    extend(model, PARTS)
    assert model.config.vocab_size == len(model.embed.weight) == 63
    torch.testing.assert_close(model.embed.weight[:60], old)
    torch.testing.assert_close(model.embed.weight[61], old[7:10].mean(0))
    model.net.save_pretrained(tmp_path / "grown")
    assert len(checkpoint.load(tmp_path / "grown").embed.weight) == 63


def test_start_gives_open_weights_the_rows_of_an_extended_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretraining would refuse the vocabulary as too large for its model."""
    made = hostile.good(tmp_path / "model", 0)
    base = tokenizer.adopt(made)
    tokenizer.extend(made, None, base.vocab_size + 9, ["çiçekler gülümsüyor"] * 9).save(tmp_path / "tokenizer")
    monkeypatch.setattr(start, "TOKENIZER", tmp_path / "tokenizer")
    recipe = config.load(ROOT / "params.yaml").pretrain
    folder = {"kind": "folder", "path": str(made)}
    with pytest.raises(UserError, match=r"if you trust these, write ([0-9a-f]{64})$") as error:
        start.start(recipe.model_copy(update={"start": recipe.start.model_copy(update=folder)}))
    pinned = recipe.start.model_copy(update=folder | {"sha256": str(error.value)[-64:]})
    load, _ = start.start(recipe.model_copy(update={"start": pinned}))
    model, old = load(torch.Generator(), torch.device("cpu")), checkpoint.load(made)
    parts = Tokenizer.load(tmp_path / "tokenizer").parts
    assert model.config.vocab_size == max(old.config.vocab_size, base.vocab_size + 9)
    for number, pieces in parts.items():
        torch.testing.assert_close(model.embed.weight[number], old.embed.weight[list(pieces)].mean(0))
