"""compilation.py: compiled blocks, their names and their cache."""

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
from pipeline.model.compilation import compiled
from pipeline.paths import CODE
from tests.models import network

COMPILE = Compute(
    device="cpu", threads=1, precision="float32", compile=True, checkpoint_activations=False, weights="float32"
)


def test_compiled_refuses_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compute\.compile is true and there is no C\+\+ compiler"):
        compiled(network(), COMPILE)


def test_compiled_keeps_the_names_of_the_weights() -> None:
    """They are the names in the checkpoint."""
    model = network()
    before = list(model.state_dict())
    assert list(compiled(model, COMPILE).state_dict()) == before


def test_compiled_covers_every_method_that_enters_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks use hidden states or a classification head, and neither enters by `forward`."""
    calls: list[str] = []

    def counting(function: Callable[..., object], **_: object) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            calls.append("block")
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(torch, "compile", counting)
    model = compiled(network(), COMPILE)
    ids = torch.zeros(1, 4, dtype=torch.long)
    for enter in (model, model.hidden):
        calls.clear()
        enter(ids)
        assert len(calls) == 2


_TRAINED = """
import hashlib, json, torch
from pipeline.config.recipe import Compute
from pipeline.model.device import set_up
from pipeline.model.compilation import compiled
from tests.models import network

compute = Compute(
    device="cpu", threads=1, precision="float32", compile=True, checkpoint_activations=False, weights="float32"
)
set_up(compute)
model = network(family="qwen3")
torch.optim.AdamW(model.parameters())  # as in a stage; imports torch's compiler, which looks for its cache
compiled(model, compute).train()
model(torch.arange(12)[None]).square().mean().backward()
data = b"".join(p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None)
from torch._dynamo.utils import counters
print(json.dumps([dict(counters["aot_autograd"]), hashlib.sha256(data).hexdigest()]))
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_compiled_reads_its_cache_with_equal_bits_at_the_next_start(tmp_path: Path) -> None:
    """Lost otherwise: every stage would compile anew, for seconds. The graph holds an autograd Function of ours."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(CODE)}
    runs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _TRAINED], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    (first, before), (second, after) = runs
    assert "autograd_cache_bypass" not in first
    assert first["autograd_cache_saved"] == second["autograd_cache_hit"] == 1
    assert before == after
    assert list((tmp_path / ".tohum/compiled").rglob("*.so"))
