"""What changes bits is said in params and never falls back in silence."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.config.recipe import Compute
from pipeline.errors import UserError
from pipeline.model import device
from pipeline.model.compilation import compiled
from pipeline.model.device import autocast, lowered, set_up
from pipeline.paths import CODE
from pipeline.tuners.lora import LoRALinear, Settings
from tests.models import network

CPU = Compute(device="cpu", threads=1, precision="float32", compile=False)
COMPILE = CPU.model_copy(update={"compile": True})


def test_a_missing_compiler_is_an_error_and_no_silent_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compute\.compile is true and there is no C\+\+ compiler"):
        compiled(network(), COMPILE)


def test_compiling_keeps_the_names_of_the_weights() -> None:
    """They are the names in the checkpoint."""
    model = network()
    before = list(model.state_dict())
    assert list(compiled(model, COMPILE).state_dict()) == before


def test_every_way_through_the_model_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are learned from hidden states and classes from a head of their own: neither enters by `forward`."""
    calls: list[str] = []

    def counting(function: Callable[..., object], **_: object) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            calls.append("block")
            return function(*given, **named)

        return call

    monkeypatch.setattr(torch, "compile", counting)
    model = compiled(network(), COMPILE)
    ids = torch.zeros(1, 4, dtype=torch.long)
    for enter in (model, model.hidden):
        calls.clear()
        enter(ids)
        assert len(calls) == 2


def test_a_missing_gpu_is_named() -> None:
    if torch.cuda.is_available():
        assert set_up(CPU.model_copy(update={"device": "cuda"})).type == "cuda"
    else:
        with pytest.raises(UserError, match="torch sees no GPU"):
            set_up(CPU.model_copy(update={"device": "cuda"}))


def test_precision_follows_the_params() -> None:
    a = torch.ones(4, 4)
    with autocast(CPU):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU.model_copy(update={"precision": "bfloat16"})):
        assert (a @ a).dtype == torch.bfloat16


LOWER = CPU.model_copy(update={"precision": "bfloat16"})


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.parametrize("decompose", [False, True])
def test_weights_cast_once_give_the_bits_of_autocast(family: str, decompose: bool) -> None:
    """Beside an adapter that reads the exact weight too. A head that shares its weight leaves the table as it is."""
    model = network(family=family, tie_embeddings=True).eval()
    adapter = Settings(
        rank=2, alpha=4.0, dropout=0.0, targets=["mlp"], rank_stabilised=False, decompose=decompose
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


def test_weights_come_back_after_an_error_and_float32_leaves_them() -> None:
    model = network()
    weight = model.blocks[0].mlp.down.weight
    with pytest.raises(ZeroDivisionError), lowered(model, LOWER):
        raise ZeroDivisionError
    assert model.blocks[0].mlp.down.weight is weight
    with lowered(model, CPU):
        assert model.blocks[0].mlp.down.weight is weight
        assert not torch.is_autocast_enabled("cpu")


def test_a_model_is_made_and_moved_without_the_compiler() -> None:
    """Deterministic algorithms, a table drawn on the meta device, or an optimizer would import it: 2 s a stage."""
    code = (
        "import sys, torch; from pipeline import config; from pipeline.model import device; "
        "from pipeline.model.config import ModelConfig; from pipeline.model.gpt import GPT; from pipeline.optimizers import muon; "
        "params = config.load(); device.set_up(params.compute); "
        "shape = ModelConfig(**params.pretrain.model.model_dump(), vocab_size=300); "
        "GPT(shape, None); model = GPT(shape, torch.Generator().manual_seed(1)); "
        "names, weights = zip(*model.named_parameters()); "
        "settings = muon.Settings(**params.pretrain.part('optimizer', 'pretrain').model_dump()); "
        "optimizer = muon.build(settings, [{'params': weights, 'names': names, 'factor': 1.0, 'begins': 0.0}]); "
        "model(torch.zeros(1, 4, dtype=torch.long)).sum().backward(); "
        "optimizer.step(); optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict()); "
        "assert torch.are_deterministic_algorithms_enabled(); "
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Only glibc has the setting; elsewhere `set_up` changes nothing, and there is nothing to test.
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_memory_is_kept_from_step_to_step() -> None:
    """Lost otherwise: every step would pay for fresh pages, 4,096 of 4 KiB for each of these tensors."""
    code = """
import resource, torch
from tests.model.test_device import CPU, set_up
set_up(CPU)
found = []
for _ in range(10):
    kept = [torch.ones(2**22) for _ in range(6)]
    del kept
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(found[-1] - found[4])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000


_TRAINED = """
import hashlib, json, torch
from pipeline.config.recipe import Compute
from pipeline.model.device import set_up
from pipeline.model.compilation import compiled
from tests.models import network

compute = Compute(device="cpu", threads=1, precision="float32", compile=True)
set_up(compute)
from torch._inductor.cpu_vec_isa import VecISA
probed, check = [], VecISA.check_build
VecISA.check_build = lambda *what: probed.append(what) or check(*what)
model = network(family="qwen3")
torch.optim.AdamW(model.parameters())  # as in a stage; imports torch's compiler, which looks for its cache
compiled(model, compute).train()
model(torch.arange(12)[None]).square().mean().backward()
data = b"".join(p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None)
from torch._dynamo.utils import counters
print(json.dumps([dict(counters["aot_autograd"]), len(probed), hashlib.sha256(data).hexdigest()]))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_what_was_compiled_is_taken_again_with_the_same_bits(tmp_path: Path) -> None:
    """A graph that the cache refuses is compiled anew by every stage, seconds each; this one has a gradient of ours."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(CODE)}
    found = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _TRAINED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    (first, probed, before), (second, probed_again, after) = found
    assert "autograd_cache_bypass" not in first
    assert first["autograd_cache_saved"] == second["autograd_cache_hit"] == 1
    assert before == after
    assert probed - probed_again >= min(probed, 3)  # ten processes at every start otherwise; what failed is tried again
    assert list((tmp_path / ".tohum/compiled").rglob("*.so"))


def test_what_a_compiler_cannot_do_is_tried_at_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it can is tried once; another compiler is another's answers."""
    from torch._inductor.cpu_vec_isa import VecAVX2, VecAVX512, VecISA

    asked: list[str] = []

    def answer(self: VecISA, code: str) -> bool:
        asked.append(code)
        return code == "can"

    compiler = tmp_path / "g++"
    compiler.touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(VecISA, "check_build", answer)
    for _ in range(2):
        device._remember_probes(compiler)
        assert VecAVX2().check_build("can")
        assert not VecAVX2().check_build("cannot")
    assert asked == ["can", "cannot", "cannot"]
    assert VecAVX512().check_build("can")
    assert asked.pop() == "can"
    assert len(asked) == 3
    compiler.write_text("another")
    device._remember_probes(compiler)
    assert VecAVX2().check_build("can")
    assert asked[3:] == ["can"]
    monkeypatch.setattr(device, "_machine", lambda: "another CPU, or another torch")
    device._remember_probes(compiler)
    assert VecAVX2().check_build("can")
    assert asked[4:] == ["can"]
