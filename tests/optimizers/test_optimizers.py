"""By which rule weights move: a wrong rule trains, only worse, and nobody sees why."""

from typing import Any

import pytest
import torch

from pipeline.config import plugins
from pipeline.config.recipe import Model
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.optimizers import orthogonal
from pipeline.training.tensors import pack, unpack
from pipeline.tuners import moving

SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"learning_rate": 1e-2, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8},
    "lamb": {"learning_rate": 5e-2, "weight_decay": 0.01, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-6},
    "muon": {
        "learning_rate": 1e-2, "matrix_learning_rate": 2e-2, "momentum": 0.9, "weight_decay": 0.01,
        "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8,
    },
    "normuon": {
        "learning_rate": 1e-2, "matrix_learning_rate": 2e-2, "momentum": 0.9, "weight_decay": 0.01,
        "beta1": 0.9, "beta2": 0.95, "matrix_beta2": 0.95, "epsilon": 1e-8,
    },
}  # fmt: skip
SHAPE = Model(
    family="qwen3", n_layers=2, n_heads=2, n_kv_heads=1, head_dim=8, d_model=16, d_ff=32, context_length=16,
    dropout=0.0, tie_embeddings=True, bias=False, rope_theta=1e4, norm_epsilon=1e-5, logit_softcap=None,
)  # fmt: skip


def model() -> GPT:
    return GPT(ModelConfig(**SHAPE.model_dump(), vocab_size=32), torch.Generator().manual_seed(1))


def optimizer(name: str, network: GPT, **changes: Any) -> torch.optim.Optimizer:
    settings = plugins.settings_class("optimizers", name).model_validate(SETTINGS[name] | changes)  # type: ignore[attr-defined]
    return plugins.load("optimizers", name).build(settings, [moving(network)])


def step(network: GPT, rule: torch.optim.Optimizer, seed: int) -> float:
    ids = torch.randint(0, 32, (4, 1), generator=torch.Generator().manual_seed(seed)) + torch.arange(17)
    logits = network(ids[:, :-1] % 32)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten() % 32)
    loss.backward()
    rule.step()
    rule.zero_grad()
    return loss.item()


def test_every_optimizer_is_tested_here() -> None:
    assert set(plugins.choices("optimizers")) == set(SETTINGS)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_it_learns(name: str) -> None:
    network = model()
    rule = optimizer(name, network)
    losses = [step(network, rule, i) for i in range(60)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_its_state_survives_a_resume_bit_for_bit(name: str) -> None:
    whole, cut = model(), model()
    one, two = optimizer(name, whole), optimizer(name, cut)
    for i in range(3):
        step(whole, one, i)
        step(cut, two, i)
    saved = {key: value.clone() for key, value in pack(cut, two).items()}
    again = model()
    three = optimizer(name, again)
    unpack(saved, again, three)
    for i in range(3, 6):
        step(whole, one, i)
        step(again, three, i)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_muons_adamw_is_torchs() -> None:
    """Tables, heads and vectors move exactly as under AdamW; one step would not show what its averages forget."""
    ours, theirs = model(), model()
    fields = {"weight_decay": 0.1}
    one, two = optimizer("muon", ours, **fields), optimizer("adamw", theirs, **fields)
    draw = torch.Generator().manual_seed(1)
    for _ in range(5):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=draw)
            q.grad = p.grad.clone()
        one.step()
        two.step()
    assert torch.equal(ours.embed.weight, theirs.embed.weight)
    assert torch.equal(ours.final_norm.weight, theirs.final_norm.weight)
    assert not torch.allclose(ours.blocks[0].mlp.up.weight, theirs.blocks[0].mlp.up.weight, atol=1e-5)


def test_muon_leaves_what_waits() -> None:
    """Gradual unfreezing: a group whose turn has not come has no gradients."""
    network = model()
    rule = optimizer("muon", network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.embed.weight.grad = torch.ones_like(network.embed.weight)
    rule.step()
    network.embed.weight.grad = None
    matrix = network.blocks[0].mlp.up.weight
    matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1))
    rule.step()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"embed.weight", "blocks.0.mlp.up.weight"}


def test_muon_shrinks_matrices_by_their_decay_beside_the_step() -> None:
    """Decoupled: rate times decay times the weight as it was, whatever the gradient."""
    plain, decayed = model(), model()
    rules = [optimizer("muon", plain, weight_decay=0.0), optimizer("muon", decayed, weight_decay=0.1)]
    one, two = (network.blocks[0].mlp.up.weight for network in (plain, decayed))
    before = one.detach().clone()
    for weight, rule in zip((one, two), rules, strict=True):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        rule.step()
    shrunk = SETTINGS["muon"]["matrix_learning_rate"] * 0.1 * before
    assert torch.allclose(one - two, shrunk, atol=1e-7)
    assert shrunk.abs().max() > 1e-5


def test_muons_steps_resume_where_the_weights_are() -> None:
    """torch's kernel on a GPU refuses a count of steps that stayed behind; the device here is one without memory."""
    settings = plugins.settings_class("optimizers", "muon")(**SETTINGS["muon"])
    here, there = (torch.nn.Parameter(torch.zeros(3, device=device)) for device in ("cpu", "meta"))
    one, two = (
        plugins.load("optimizers", "muon").build(
            settings, [{"params": [weight], "names": ["norm"], "factor": 1.0, "begins": 0.0}]
        )
        for weight in (here, there)
    )
    here.grad = torch.ones(3)
    one.step()
    two.load_state_dict(one.state_dict())
    assert {name: tensor.device.type for name, tensor in two.state[there].items()} == dict.fromkeys(
        ("step", "first", "second"), "meta"
    )


def moves(name: str, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """What each of some matrices in turn as gradients adds to one weight, without decay."""
    weight = torch.nn.Parameter(torch.zeros_like(gradients[0]))
    settings = plugins.settings_class("optimizers", name)(**SETTINGS[name] | {"weight_decay": 0.0})
    groups = [{"params": [weight], "names": ["blocks.0.up.weight"], "factor": 1.0, "begins": 0.0}]
    rule, made = plugins.load("optimizers", name).build(settings, groups), []
    for gradient in gradients:
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        rule.step()
        made.append(weight.detach() - before)
    return made


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_muons_step_is_as_long_as_its_rate_says(shape: tuple[int, int]) -> None:
    """Singular values of rate times sqrt(max(1, rows / columns)); five steps of the quintic end at about 0.9 of it."""
    (moved,) = moves("muon", [torch.randn(shape, generator=torch.Generator().manual_seed(1))])
    values = torch.linalg.svdvals(moved) / (2e-2 * max(1.0, shape[0] / shape[1]) ** 0.5)
    assert 0.75 < values.mean() < 1.15


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_normuon_shares_muons_step_out_among_the_rows(shape: tuple[int, int]) -> None:
    """Algorithm 1 of Li et al. written out, over three steps; and the length of Muon's own step."""
    draw = torch.Generator().manual_seed(1)
    gradients = [torch.randn(shape, generator=draw) * torch.logspace(-2, 0, shape[0])[:, None] for _ in range(3)]
    plain, found = moves("muon", gradients), moves("normuon", gradients)
    second = torch.zeros(shape[0])
    for muons, ours in zip(plain, found, strict=True):
        unit = muons / (2e-2 * max(1.0, shape[0] / shape[1]) ** 0.5)
        second = 0.95 * second + 0.05 * unit.square().mean(1)
        wanted = unit / (second.sqrt()[:, None] + 1e-8)
        torch.testing.assert_close(ours / ours.norm(), wanted / wanted.norm(), atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.norm(), muons.norm(), atol=0, rtol=1e-5)
    assert plain[0].norm(dim=1).max() / plain[0].norm(dim=1).min() > 1.2  # there was something to share
    torch.testing.assert_close(found[0].norm(dim=1), found[0].norm(dim=1).mean().expand(shape[0]), atol=1e-6, rtol=1e-4)


def test_normuon_does_nothing_without_a_gradient_and_lets_a_dead_row_be() -> None:
    nothing, dead = torch.zeros(4, 8), torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    dead[2] = 0
    assert torch.equal(moves("normuon", [nothing])[0], nothing)
    (moved,) = moves("normuon", [dead])
    assert moved.isfinite().all()
    assert moved.norm(dim=1).gt(0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_newton_schulz_brings_singular_values_near_one(shape: tuple[int, int], half: bool) -> None:
    """The quintic of Jordan et al. settles between 0.7 and 1.2, not at 1; a broken one leaves the spread as it was."""
    drawn = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = orthogonal(drawn)
    assert torch.equal(found, found.bfloat16().float()) == half  # whose products were rounded
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.4
    assert values.max() < 1.3
    assert torch.linalg.svdvals(drawn).max() > 3


def test_lamb_moves_a_matrix_by_its_own_length() -> None:
    """Algorithm 2 written out in numbers: |step| = rate * |w| for a matrix, and Adam's own step for a vector."""
    matrix, vector = torch.nn.Parameter(torch.full((2, 3), 2.0)), torch.nn.Parameter(torch.full((3,), 2.0))
    groups = [{"params": [matrix, vector], "names": ["m", "v"], "factor": 1.0, "begins": 0.0}]
    settings = plugins.settings_class("optimizers", "lamb")(**SETTINGS["lamb"] | {"learning_rate": 0.1})
    rule = plugins.load("optimizers", "lamb").build(settings, groups)
    matrix.grad, vector.grad = torch.full((2, 3), 0.5), torch.full((3,), 0.5)
    rule.step()
    # r = 0.5 / (0.5 + 1e-6) in every place; r + decay w = 1.02; trust = |w| / |r + decay w| = 2 / 1.02
    torch.testing.assert_close(matrix.detach(), torch.full((2, 3), 2.0 - 0.1 * 2.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(vector.detach(), torch.full((3,), 2.0 - 0.1), atol=1e-5, rtol=0)
    assert rule.figures["trust_ratio_mean"] == pytest.approx(2 / 1.02, rel=1e-4)
    zero = torch.nn.Parameter(torch.zeros(2, 2))
    zero.grad = torch.ones(2, 2)
    rule = plugins.load("optimizers", "lamb").build(settings, [groups[0] | {"params": [zero]}])
    rule.step()  # a weight of length zero (LoRA's B) must be able to leave it
    torch.testing.assert_close(zero.detach(), torch.full((2, 2), -0.1), atol=1e-5, rtol=0)
