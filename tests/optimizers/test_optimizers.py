"""Optimizers: a wrong update still trains, only worse, and no error shows it."""

from typing import Any

import pytest
import torch

from pipeline.config.recipe import Model
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.optimizers import orthogonalize
from pipeline.training.tensors import pack, unpack
from pipeline.tuners import trainable_group
from tests import variants
from tests.variants import Variant

SHAPE = Model(
    family="qwen3", n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, d_model=16, d_ff=32, context_length=16,
    dropout=0.0, tie_embeddings=True, bias=False, rope_theta=1e4, norm_epsilon=1e-5, logit_softcap=None,
)  # fmt: skip


def model() -> GPT:
    return GPT(ModelConfig(**SHAPE.model_dump(), vocab_size=32), torch.Generator().manual_seed(1))


def optimizer_of(name: str, network: GPT, **changes: Any) -> torch.optim.Optimizer:
    return variants.build("optimizers", name, [trainable_group(network)], **changes)


def step(network: GPT, optimizer: torch.optim.Optimizer, seed: int) -> float:
    ids = torch.randint(0, 32, (4, 1), generator=torch.Generator().manual_seed(seed)) + torch.arange(17)
    logits = network(ids[:, :-1] % 32)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten() % 32)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@pytest.mark.parametrize("variant", variants.variants("optimizers"), ids=str)
def test_every_optimizer_lowers_the_loss(variant: Variant) -> None:
    network = model()
    optimizer = variant.build([trainable_group(network)])
    losses = [step(network, optimizer, i) for i in range(60)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("variant", variants.variants("optimizers"), ids=str)
def test_every_optimizer_continues_to_the_same_bits_after_a_resume(variant: Variant) -> None:
    whole, interrupted, resumed = model(), model(), model()
    of_whole, of_interrupted, of_resumed = (
        variant.build([trainable_group(network)]) for network in (whole, interrupted, resumed)
    )
    for i in range(3):
        step(whole, of_whole, i)
        step(interrupted, of_interrupted, i)
    saved = {key: value.clone() for key, value in pack(interrupted, of_interrupted).items()}
    unpack(saved, resumed, of_resumed)
    for i in range(3, 6):
        step(whole, of_whole, i)
        step(resumed, of_resumed, i)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_muon_updates_embeddings_and_vectors_as_torchs_adamw() -> None:
    """Exactly; several steps, because one would not show a wrong decay of the moments."""
    ours, theirs = model(), model()
    fields = {"weight_decay": 0.1}
    ours_optimizer, theirs_optimizer = optimizer_of("muon", ours, **fields), optimizer_of("adamw", theirs, **fields)
    draw = torch.Generator().manual_seed(1)
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=draw)
            q.grad = p.grad.clone()
        ours_optimizer.step()
        theirs_optimizer.step()
    assert torch.equal(ours.embed.weight, theirs.embed.weight)
    assert torch.equal(ours.final_norm.weight, theirs.final_norm.weight)
    assert not torch.allclose(ours.blocks[0].mlp.up.weight, theirs.blocks[0].mlp.up.weight, atol=1e-5)


def test_muon_leaves_parameters_without_a_gradient() -> None:
    """Gradual unfreezing: a group that is still frozen has no gradients."""
    network = model()
    optimizer = optimizer_of("muon", network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.embed.weight.grad = torch.ones_like(network.embed.weight)
    optimizer.step()
    network.embed.weight.grad = None
    matrix = network.blocks[0].mlp.up.weight
    matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"embed.weight", "blocks.0.mlp.up.weight"}


def test_muon_decays_matrices_decoupled_from_the_gradient() -> None:
    """Decoupled: rate times decay times the weight as it was, whatever the gradient."""
    plain, decayed = model(), model()
    optimizers = [optimizer_of("muon", plain, weight_decay=0.0), optimizer_of("muon", decayed, weight_decay=0.1)]
    of_plain, of_decayed = (network.blocks[0].mlp.up.weight for network in (plain, decayed))
    before = of_plain.detach().clone()
    for weight, optimizer in zip((of_plain, of_decayed), optimizers, strict=True):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        optimizer.step()
    shrunk = variants.settings("optimizers", "muon").matrix_learning_rate * 0.1 * before
    assert torch.allclose(of_plain - of_decayed, shrunk, atol=1e-7)
    assert shrunk.abs().max() > 1e-5


def test_muon_loads_its_step_count_to_the_weights_device() -> None:
    """torch's kernel on a GPU refuses a count of steps that stayed behind; the device here is one without memory."""
    here, there = (torch.nn.Parameter(torch.zeros(3, device=device)) for device in ("cpu", "meta"))
    on_cpu, on_meta = (
        variants.build("optimizers", "muon", [{"params": [weight], "names": ["norm"], "factor": 1.0, "begins": 0.0}])
        for weight in (here, there)
    )
    here.grad = torch.ones(3)
    on_cpu.step()
    on_meta.load_state_dict(on_cpu.state_dict())
    assert {name: tensor.device.type for name, tensor in on_meta.state[there].items()} == dict.fromkeys(
        ("step", "first", "second"), "meta"
    )


def updates_of(name: str, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """The update of one weight by each of these gradients in turn, without weight decay."""
    weight = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    groups = [{"params": [weight], "names": ["blocks.0.up.weight"], "factor": 1.0, "begins": 0.0}]
    optimizer, updates = variants.build("optimizers", name, groups, weight_decay=0.0), []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        updates.append(weight.detach() - before)
    return updates


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_muon_update_has_singular_values_of_about_the_learning_rate(shape: tuple[int, int]) -> None:
    """Singular values of rate times sqrt(max(1, rows / columns)); five steps of the quintic end at about 0.9 of it."""
    (moved,) = updates_of("muon", [torch.randn(shape, generator=torch.Generator().manual_seed(1))])
    values = torch.linalg.svdvals(moved) / (2e-2 * max(1.0, shape[0] / shape[1]) ** 0.5)
    assert 0.75 < values.mean() < 1.15


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_normuon_normalises_the_rows_and_keeps_the_norm_of_muon(shape: tuple[int, int]) -> None:
    """Algorithm 1 of Li et al. written out, over three steps; and the length of Muon's own step."""
    draw = torch.Generator().manual_seed(1)
    gradients = [torch.randn(shape, generator=draw) * torch.logspace(-2, 0, shape[0])[:, None] for _ in range(3)]
    plain, normalised = updates_of("muon", gradients), updates_of("normuon", gradients)
    second = torch.zeros(shape[0])
    for muons, ours in zip(plain, normalised, strict=True):
        unit = muons / (2e-2 * max(1.0, shape[0] / shape[1]) ** 0.5)
        second = 0.95 * second + 0.05 * unit.square().mean(1)
        wanted = unit / (second.sqrt()[:, None] + 1e-8)
        torch.testing.assert_close(ours / ours.norm(), wanted / wanted.norm(), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.norm(), muons.norm(), atol=0, rtol=1e-5)
    assert plain[0].norm(dim=1).max() / plain[0].norm(dim=1).min() > 1.2  # the rows of Muon's update do differ
    torch.testing.assert_close(
        normalised[0].norm(dim=1), normalised[0].norm(dim=1).mean().expand(shape[0]), atol=1e-6, rtol=1e-4
    )


def test_normuon_moves_nothing_where_the_gradient_is_zero() -> None:
    nothing, dead = torch.zeros(4, 8), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    dead[2] = 0
    assert torch.equal(updates_of("normuon", [nothing])[0], nothing)
    (moved,) = updates_of("normuon", [dead])
    assert moved.isfinite().all()
    assert moved.norm(dim=1).gt(0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_orthogonalize_brings_singular_values_near_one(shape: tuple[int, int], half: bool) -> None:
    """The quintic of Jordan et al. settles between 0.7 and 1.2, not at 1; a broken one leaves the spread as it was."""
    drawn = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = orthogonalize(drawn)
    assert torch.equal(found, found.bfloat16().float()) == half  # products are rounded under autocast alone
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.4
    assert values.max() < 1.3
    assert torch.linalg.svdvals(drawn).max() > 3


def test_lamb_moves_a_matrix_by_its_own_norm() -> None:
    """Algorithm 2 written out in numbers: |step| = rate * |w| for a matrix, and Adam's own step for a vector."""
    matrix, vector = torch.nn.Parameter(torch.full((2, 3), 2.0)), torch.nn.Parameter(torch.full((3,), 2.0))
    groups = [{"params": [matrix, vector], "names": ["m", "v"], "factor": 1.0, "begins": 0.0}]
    optimizer = variants.build("optimizers", "lamb", groups, learning_rate=0.1)
    matrix.grad, vector.grad = torch.full((2, 3), 0.5), torch.full((3,), 0.5)
    optimizer.step()
    # r = 0.5 / (0.5 + 1e-6) in every place; r + decay w = 1.02; trust = |w| / |r + decay w| = 2 / 1.02
    torch.testing.assert_close(matrix.detach(), torch.full((2, 3), 2.0 - 0.1 * 2.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(vector.detach(), torch.full((3,), 2.0 - 0.1), atol=1e-5, rtol=0)
    assert optimizer.figures["trust_ratio_mean"] == pytest.approx(2 / 1.02, rel=1e-4)
    zero = torch.nn.Parameter(torch.zeros(2, 2))
    zero.grad = torch.ones(2, 2)
    optimizer = variants.build("optimizers", "lamb", [groups[0] | {"params": [zero]}], learning_rate=0.1)
    optimizer.step()  # a weight of length zero (LoRA's B) must be able to leave it
    torch.testing.assert_close(zero.detach(), torch.full((2, 2), -0.1), atol=1e-5, rtol=0)
