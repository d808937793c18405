"""What changes bits is said in params and never falls back in silence."""

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
