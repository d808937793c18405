"""memory.py: equal bits with activations computed again; frozen weights in bfloat16 and NF4, and their gradients."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.config import plugins
from pipeline.errors import UserError
from pipeline.model import checkpoint, memory
from pipeline.model.adapters import LearnedPrefix
from pipeline.model.gpt import GPT
from tests.models import network

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
IDS = torch.randint(0, 30, (3, 12), generator=torch.Generator().manual_seed(4))
PLACES = {
    "whole": {},
    "wanted": {"wanted_BT": IDS > 15},
    "documents": {"segments_BT": (IDS > 20).cumsum(1)},
}


def gradients(model: GPT, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Logits and the gradient of every trained weight."""
    torch.manual_seed(1)  # dropout
    logits = model.train()(IDS, **inputs)
    model.zero_grad()
    (logits.float() * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return {"logits": logits.detach()} | {
        name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None
    }


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoint_activations_gives_equal_bits(family: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a recipe would train another model where it is given less memory."""
    model, calls = network(family, dropout=0.25), []
    plain = gradients(model, PLACES[place])
    memory.checkpoint_activations(model, True)
    forward = model.blocks[0].forward
    monkeypatch.setattr(model.blocks[0], "forward", lambda *inputs: calls.append(1) or forward(*inputs))
    assert equal(gradients(model, PLACES[place]), plain)
    assert len(calls) == 2  # once more in the backward pass
    memory.checkpoint_activations(model, False)
    gradients(model, PLACES[place])
    assert len(calls) == 3


def test_checkpoint_activations_reaches_a_prefix_and_dropout_of_an_adapter() -> None:
    """Lost otherwise: prefix tuning would train nothing, and LoRA's dropout would differ between the two passes."""
    model = lora(network("llama"), dropout=0.5)
    model.virtual = LearnedPrefix(torch.randn(3, 2 * 2 * 1 * 8))
    plain = gradients(model, {})
    memory.checkpoint_activations(model, True)
    checkpointed = gradients(model, {})
    assert equal(checkpointed, plain)
    assert checkpointed["virtual.flat"].abs().sum() > 0


def test_checkpoint_activations_switches_a_model_of_transformers() -> None:
    """Lost otherwise: an architecture that transformers computes would keep every activation."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=30
    )
    inner = transformers.BertModel(config)
    model = nn.Sequential(inner)
    memory.checkpoint_activations(model, True)
    assert inner.is_gradient_checkpointing
    memory.checkpoint_activations(model, False)
    assert not inner.is_gradient_checkpointing


def lora(model: GPT, dropout: float = 0.0, decompose: bool = False) -> GPT:
    """The model with LoRA on every projection, drawn as if trained."""
    part = plugins.load("tuners", "lora")
    settings = part.Settings(
        rank=2,
        alpha=4.0,
        dropout=dropout,
        rank_stabilised=False,
        decompose=decompose,
        merged=True,
        targets=["attention", "mlp"],
    )
    part.build(settings).apply(model, torch.Generator().manual_seed(2), list)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dim() == 2:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return model


def rounded(model: GPT) -> GPT:
    """Every frozen matrix rounded to bfloat16, kept as float32."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.requires_grad and parameter.dim() == 2:
                parameter.copy_(parameter.to(torch.bfloat16).float())
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("decompose", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_lower_to_bfloat16_trains_adapters_as_rounded_weights_do(family: str, decompose: bool, tied: bool) -> None:
    """Lost otherwise: the gradient of an adapter would be that of other weights than the saved ones."""
    model = lora(network(family, tie_embeddings=tied), decompose=decompose)
    expected = gradients(rounded(lora(network(family, tie_embeddings=tied), decompose=decompose)), {})
    memory.lower(model, "bfloat16")
    lowered = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and p.dim() == 2}
    assert lowered == frozen - {"positions.weight"} | ({"positions.weight"} & frozen)
    made = gradients(model, {})
    assert made.keys() == expected.keys()
    for name in made:
        torch.testing.assert_close(made[name], expected[name], atol=1e-4, rtol=1e-4)
    memory.restore(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert (model.head.weight is model.embed.weight) == tied
    assert equal(gradients(model, {}), expected)


def test_lower_leaves_trained_weights_and_their_ties_alone() -> None:
    """Lost otherwise: a trained weight would round its updates away, or a tied head part from its embedding."""
    model = network("llama", tie_embeddings=True)
    names = list(model.state_dict())
    memory.lower(model, "bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    model.blocks[0].requires_grad_(False)
    memory.lower(model, "bfloat16")
    assert model.blocks[0].mlp.up.weight.dtype == torch.bfloat16
    assert model.blocks[0].norm1.weight.dtype == model.blocks[1].mlp.up.weight.dtype == torch.float32
    assert list(model.state_dict()) == names


def test_lower_lets_go_of_the_file_of_weights(tmp_path: Path) -> None:
    """Lost otherwise: one norm that stays would keep all of the weights in memory, which the file's mapping shares."""
    checkpoint.save(network("llama"), tmp_path / "m")
    model = checkpoint.load(tmp_path / "m").requires_grad_(False)
    memory.lower(model, "bfloat16")
    assert all(p.untyped_storage().nbytes() == p.numel() * p.element_size() for p in model.parameters())


def test_lower_computes_in_the_precision_of_autocast() -> None:
    model = lora(network("llama"))
    with torch.autocast("cpu", torch.bfloat16):
        expected = rounded(lora(network("llama")))(IDS)
        memory.lower(model, "bfloat16")
        logits = model(IDS)
    assert logits.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.02)


def test_lower_gives_gradients_of_gradients() -> None:
    """Lost otherwise: a loss that needs the gradient of a gradient (smoothing) would miss a part of it."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    memory.lower(model, "bfloat16")
    assert model[0].weight.dtype == torch.bfloat16
    model[0].bias.data, model[2].bias.data = model[0].bias.double(), model[2].bias.double()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(model, x)
    assert torch.autograd.gradgradcheck(model, x)


def test_lower_covers_a_model_of_transformers() -> None:
    """Lost otherwise: an architecture that transformers computes would be held in float32."""
    import transformers

    config = transformers.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=30)
    config.decoder_start_token_id = 0
    model = transformers.T5ForConditionalGeneration(config).requires_grad_(False).eval()
    expected = model(input_ids=IDS, labels=IDS).loss
    memory.lower(model, "bfloat16")
    lowered = sum(p.numel() for p in model.parameters() if p.dtype == torch.bfloat16)
    assert lowered > 0.98 * sum(p.numel() for p in model.parameters())
    assert model.lm_head.weight is model.shared.weight is model.encoder.embed_tokens.weight
    torch.testing.assert_close(model(input_ids=IDS, labels=IDS).loss, expected, rtol=0.02, atol=0)
    memory.restore(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_lower_to_nf4_refuses_a_machine_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"compute\.weights is nf4, which needs the library bitsandbytes"):
        memory.lower(lora(network("llama")), "nf4")


def test_lower_to_nf4_keeps_4_bits_and_trains_adapters_as_the_dequantised_weights_do() -> None:
    """Skipped where bitsandbytes is not installed: it is an extra."""
    pytest.importorskip("bitsandbytes")
    model = lora(network("llama", d_model=64, n_heads=4, head_dim=16, d_ff=128))
    exact = model.blocks[0].mlp.up.base.weight.clone()
    memory.lower(model, "nf4")
    layer = model.blocks[0].mlp.up.base
    assert layer.packed.numel() * 2 == exact.numel()
    assert 0 < (layer.weight - exact).abs().max() < 0.02
    made = gradients(model, {})
    memory.restore(model)
    assert isinstance(model.blocks[0].mlp.up.base, nn.Linear)
    expected = gradients(model, {})
    for name in made:
        torch.testing.assert_close(made[name], expected[name], atol=1e-4, rtol=1e-4)


def test_lower_to_nf4_refuses_a_model_without_a_frozen_projection() -> None:
    pytest.importorskip("bitsandbytes")
    with pytest.raises(UserError, match="this recipe freezes no projection: 4-bit weights cannot be trained"):
        memory.lower(network("llama"), "nf4")
