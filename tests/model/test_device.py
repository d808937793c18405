"""What changes bits is said in params and never falls back in silence."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.config import Compute, UserError
from pipeline.model.device import autocast, compiled, set_up

CPU = Compute(device="cpu", threads=1, precision="float32", compile=False)


def test_a_missing_compiler_is_an_error_and_no_silent_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"compute\.compile is true and there is no C\+\+ compiler"):
        compiled(nn.Linear(2, 2), CPU.model_copy(update={"compile": True}))


def test_compiling_keeps_the_names_of_the_weights() -> None:
    """They are the names in the checkpoint."""
    model = nn.Linear(2, 2)
    before = list(model.state_dict())
    assert list(compiled(model, CPU.model_copy(update={"compile": True})).state_dict()) == before


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


def test_a_model_is_made_without_the_compiler() -> None:
    """Deterministic algorithms or a table drawn on the meta device would import torch's compiler: 2 s a stage."""
    code = (
        "import sys, torch; from pipeline import config; from pipeline.model import device; "
        "from pipeline.model.gpt import GPT, ModelConfig; params = config.load(); device.set_up(params.compute); "
        "shape = ModelConfig(**params.pretrain.model.model_dump(), vocab_size=300); "
        "GPT(shape, None); GPT(shape, torch.Generator().manual_seed(1))(torch.zeros(1, 4, dtype=torch.long)); "
        "assert torch.are_deterministic_algorithms_enabled(); "
        "print([name for name in ('torch._dynamo', 'torch._inductor', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
