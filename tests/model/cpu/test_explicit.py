"""cpu/explicit.py: attention written out equals that of torch, with its first and second derivatives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.capture import Capture
from pipeline.model.cpu import explicit
from pipeline.paths import CODE
from tests.models import network


def heads(T: int, dtype: torch.dtype, H: int = 3, G: int = 3) -> list[Tensor]:
    """q of H heads, k and v of G, of two rows."""
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(2, n, T, 8, generator=generator, dtype=torch.float64) for n in (H, G, G)]
    return [x.to(dtype).requires_grad_() for x in made]


def rule(name: str, T: int, H: int) -> Tensor | None:
    """Causal; two documents apart, for all heads alike; one for each head, added to the scores, that is not causal."""
    if name == "causal":
        return None
    if name == "added":
        return torch.randn(2, H, T, T, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    document = torch.arange(T) // (T // 2 + 1)
    return ((document[:, None] == document) & torch.ones(T, T, dtype=torch.bool).tril()).expand(2, 1, T, T)


@pytest.mark.parametrize("name", ["causal", "documents", "added"])
@pytest.mark.parametrize("T", [5, 300])
@pytest.mark.parametrize(("H", "G"), [(3, 3), (6, 2), (4, 1), (1, 1)])
def test_attend_equals_attention_of_torch_with_its_gradients(
    H: int, G: int, T: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 300 positions in blocks of 80, the last of them not full; H heads of queries share G of keys."""
    monkeypatch.setattr(explicit, "_BLOCK", 80)
    given, mask = heads(T, torch.float64, H, G), rule(name, T, H)
    q, k, v = given
    repeated = (x.repeat_interleave(H // G, 1) for x in (k, v))
    wanted = F.scaled_dot_product_attention(q, *repeated, mask, is_causal=mask is None)
    found = explicit.attend(*given, mask, mask is None)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)
    gradient = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pairs = zip(torch.autograd.grad(found, given, gradient), torch.autograd.grad(wanted, given, gradient), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


def test_attend_has_second_derivatives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: the weights kept for the gradient are taken for constants when it is differentiated again."""
    monkeypatch.setattr(explicit, "_BLOCK", 2)
    given = heads(5, torch.float64, H=4, G=2)
    assert torch.autograd.gradcheck(lambda *given: explicit.attend(*given, None, True), given)
    assert torch.autograd.gradgradcheck(lambda *given: explicit.attend(*given, None, True), given)


def test_attend_rounds_no_worse_than_torch() -> None:
    """bfloat16 keeps 8 bits: no further from the exact gradient than twice torch's own kernel."""

    def gradients(dtype: torch.dtype, own: bool) -> Tensor:
        given = heads(64, dtype)
        out = explicit.attend(*given, None, True) if own else F.scaled_dot_product_attention(*given, is_causal=True)
        return torch.cat([x.flatten().double() for x in torch.autograd.grad(out.square().sum(), given)])

    exact = gradients(torch.float64, own=False)
    mine, theirs = (float((gradients(torch.bfloat16, own) - exact).norm()) for own in (True, False))
    assert 0 < mine < 2 * theirs


def test_suits_is_true_for_bfloat16_training_alone() -> None:
    q, k, v = heads(4, torch.bfloat16)
    assert explicit.suits(q, k, v, dropout=0.0)
    assert not explicit.suits(q, k, v, dropout=0.1)
    assert not explicit.suits(q, k, v.float(), dropout=0.0)
    assert not explicit.suits(q.float(), k.float(), v.float(), dropout=0.0)
    assert not explicit.suits(q, torch.cat((k, k), 2), torch.cat((v, v), 2), dropout=0.0)  # after a prefix or a cache
    long = q.repeat(1, 1, 512, 1)
    assert not explicit.suits(long, long, long, dropout=0.0)  # torch's kernel is faster at 2,048 positions
    with torch.no_grad():
        assert not explicit.suits(q, k, v, dropout=0.0)


def test_causal_bias_caches_few_lengths() -> None:
    """Rows of documents have another length in every batch: at a context of 4,096 a table each fills the memory."""
    for length in range(1, 20):
        explicit.causal_bias(length, torch.device("cpu"))
    assert explicit.causal_bias.cache_info().currsize <= 4


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_gpt_trains_through_attend_in_bfloat16(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a block, and to the gradient that torch's kernel gives, but for rounding (8 bits, two blocks)."""
    ids, calls, attend = torch.arange(24).view(2, 12), [], explicit.attend

    def counting(*given: object) -> object:
        calls.append(given)
        return attend(*given)

    def gradient(suits: bool) -> Tensor:
        model = network(family=family)
        with monkeypatch.context() as patched:
            patched.setattr(explicit, "attend", counting)
            if not suits:
                patched.setattr(explicit, "suits", lambda *given: False)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
            loss.backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    mine = gradient(suits=True)
    assert len(calls) == 2
    theirs = gradient(suits=False)
    assert len(calls) == 2
    assert float((mine - theirs).norm() / theirs.norm()) < 0.02


def test_capture_records_attention_where_attend_would_run() -> None:
    """Of the recorded layer, with weights that sum to 1."""
    model = network(family="qwen3")
    with torch.autocast("cpu", torch.bfloat16), model.capturing(Capture(attentions=[1])) as captured:
        model(torch.arange(24).view(2, 12))
    assert list(captured.attentions) == [1]
    weights = captured.attentions[1].float()
    assert weights.shape == (2, 2, 12, 12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 12), atol=2**-6, rtol=0)


_TRAINED = """
import torch
from torch._dynamo.utils import counters
from pipeline.config.recipe import Compute
from pipeline.model.cpu import explicit, linear
from pipeline.model.device import autocast
from pipeline.model.compilation import compiled
from tests.models import network

explicit._BLOCK, linear._LEAST = 4, 8
found, graphs = [], []
for compile in (False, True):
    compute = Compute(
        device="cpu", threads=1, precision="bfloat16", compile=compile, checkpoint_activations=False, weights="float32"
    )
    model = compiled(network(family=FAMILY, context_length=32, vocab_size=60), compute).train()
    for length in range(13, 25):
        ids = torch.arange(2 * length).view(2, length)
        with autocast(compute):
            model(ids).float().square().mean().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
assert "autograd_cache_bypass" not in counters["aot_autograd"]
plain, compiled = found
print(float((plain - compiled).norm() / plain.norm()), graphs[-1])
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_compiled_blocks_give_eager_gradients_with_one_graph_for_all_lengths(family: str, tmp_path: Path) -> None:
    """But for rounding, and with gradients of our own of activations and weights, in graphs that the cache takes.

    A graph a length would end after eight: the compiler then gives up, and blocks run plain, with other bits. Two are
    right: the first length is taken for a constant, the second makes a graph for all.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(CODE)}
    done = subprocess.run(
        [sys.executable, "-c", f"FAMILY = {family!r}\n{_TRAINED}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    far, graphs = done.stdout.split()
    assert float(far) < 0.02
    assert int(graphs) == 2
