"""footprint.py: the bytes that torch keeps, beside those that the formula counts; what does not fit is refused."""

import contextlib
from typing import Any

import pytest
import torch

from pipeline.config import plugins
from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model import memory
from pipeline.model.gpt import GPT
from pipeline.training import footprint
from tests.models import network, shape

COMPUTE = Compute(
    device="cpu", threads=1, precision="float32", compile=False, checkpoint_activations=False, weights="float32"
)
SIZE: dict[str, Any] = {
    "n_heads": 8, "n_kv_heads": 2, "head_dim": 12, "d_model": 96, "d_ff": 256, "context_length": 64, "vocab_size": 32,
}  # fmt: skip
IDS = torch.zeros(4, 64, dtype=torch.long)


def made(family: str, n_layers: int, tuner: str) -> GPT:
    model = network(family, **SIZE | ({"n_kv_heads": 8} if family == "gpt2" else {}), n_layers=n_layers)
    if tuner == "lora":
        part = plugins.load("tuners", "lora")
        settings = part.Settings(
            rank=1,
            alpha=1.0,
            dropout=0.0,
            rank_stabilised=False,
            decompose=False,
            merged=True,
            targets=["attention", "mlp"],
        )
        part.build(settings).apply(model, torch.Generator().manual_seed(1), list)
    return model


def kept_bytes(model: GPT, precision: str) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward pass, beside the weights."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}  # the tensors live until the end, so no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    lower = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), lower:
        model.train().hidden(IDS)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat"])
def test_footprint_counts_the_activations_that_torch_keeps(family: str, tuner: str, precision: str) -> None:
    """Lost otherwise: a kernel that keeps more would let a training start that the machine ends."""
    compute = COMPUTE.model_copy(update={"precision": precision})
    kept, counted = [], []
    for n_layers in (2, 3):
        model = made(family, n_layers, tuner)
        kept.append(kept_bytes(model, precision))
        total = model.num_parameters()
        counts = footprint.Counts(total, model.num_parameters(trainable=True), model.embed.weight.numel())
        batch = footprint.BatchShape(IDS.numel(), 0, 64)
        expected = footprint.footprint(model.config, counts, "adamw", compute, batch).activations
        counted.append(expected / footprint.PIECES)
    assert counted[1] - counted[0] == pytest.approx(kept[1] - kept[0], rel=0.12)
    assert counted[1] == pytest.approx(kept[1], rel=0.2)


def test_footprint_of_checkpointed_activations_keeps_one_block_and_the_inputs_of_all() -> None:
    config = shape("llama", **SIZE, n_layers=10)
    batch = footprint.BatchShape(1000, 0, 64)
    counts = footprint.count(config)
    whole = footprint.footprint(config, counts, "adamw", COMPUTE, batch).activations
    less = footprint.footprint(
        config, counts, "adamw", COMPUTE.model_copy(update={"checkpoint_activations": True}), batch
    ).activations
    assert less == pytest.approx(whole / footprint.PIECES / 10 + 10 * 1000 * 96 * 4)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "arcee", "nanochat"])
def test_count_counts_the_weights_of_a_network(family: str) -> None:
    model = made(family, 2, "full")
    assert footprint.count(model.config).total == pytest.approx(model.num_parameters(), rel=0.02)


@pytest.mark.parametrize(("weights", "bytes_a_weight"), [("float32", 4), ("bfloat16", 2), ("nf4", 0.5625)])
def test_footprint_counts_frozen_weights_in_their_precision(weights: str, bytes_a_weight: float) -> None:
    config = shape("llama")
    compute = COMPUTE.model_copy(update={"weights": weights})
    counts = footprint.Counts(total=1_000_100, trained=100, embedding=0)
    made_of = footprint.footprint(config, counts, "adamw", compute, footprint.BatchShape(1, 0, 1))
    assert made_of.weights == pytest.approx(1_000_000 * bytes_a_weight + 400)
    assert (made_of.gradients, made_of.optimizer, made_of.best) == (400, 800, 400)


def test_require_memory_names_the_figure_what_is_there_and_what_to_change() -> None:
    """Lost otherwise: the machine ends the stage without a word, hours after it began."""
    config = shape("llama", **SIZE)
    counts = footprint.Counts(10**9, 10**9, 10**6)
    expected = footprint.footprint(config, counts, "adamw", COMPUTE, footprint.BatchShape(10**6, 10**5, 64))
    with pytest.raises(UserError) as caught:
        footprint.require_memory("finetune.chat", expected, 8 << 30, COMPUTE)
    text = str(caught.value)
    assert text.startswith(f"params.yaml: finetune.chat needs about {expected.total / 2**20:,.0f} MiB of memory (")
    for words in ("optimizer 7,629", "there are 8,192", "checkpoint_activations to true", "finetune.chat.tuner"):
        assert words in text
    footprint.require_memory("finetune.chat", expected, expected.total, COMPUTE)


def test_footprint_counts_both_precisions_while_frozen_weights_are_lowered() -> None:
    """Lost otherwise: a training whose updates fit, but not its reading or its end, is let start."""
    config, counts = shape("llama", **SIZE, n_layers=2), footprint.Counts(10**9, 10**3, 10**3)
    compute = COMPUTE.model_copy(update={"weights": "bfloat16", "checkpoint_activations": True})
    expected = footprint.footprint(config, counts, "adamw", compute, footprint.BatchShape(1, 0, 1))
    assert expected.total >= 6 * 10**9 > sum(expected) - expected.conversion


def test_prepared_models_keep_what_is_counted() -> None:
    """The bytes of a lowered model's own weights."""
    model = made("llama", 3, "lora")
    counts = footprint.Counts(model.num_parameters(), model.num_parameters(trainable=True), model.embed.weight.numel())
    compute = COMPUTE.model_copy(update={"weights": "bfloat16"})
    expected = footprint.footprint(model.config, counts, "adamw", compute, footprint.BatchShape(1, 0, 1)).weights
    memory.prepare(model, compute)
    held = sum(p.numel() * p.element_size() for p in dict.fromkeys(model.parameters()))
    assert held == pytest.approx(expected, rel=0.02)
