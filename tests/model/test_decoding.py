"""decoding.py and native.py: the logits of GPT by torch's kernels and by compiled code, equal in any company."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.model import native
from pipeline.model.decoding import FlatModel, Piece
from pipeline.model.gpt import GPT
from tests.models import network, shape

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
ODD = {"d_model": 44, "n_heads": 4, "n_kv_heads": 2, "head_dim": 38, "d_ff": 70, "vocab_size": 37, "context_length": 64}
"""Widths that are no multiple of the 16 lanes of a register."""


def odd(family: str) -> GPT:
    """A network of odd widths with biases and norms of all sizes."""
    changes = ODD | ({"n_kv_heads": 4, "head_dim": 11} if family == "gpt2" else {})
    changes |= {"logit_softcap": 15.0, "d_model": 40, "head_dim": 10} if family == "nanochat" else {}
    generator = torch.Generator().manual_seed(2)
    model = GPT(shape(family, **changes), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_step_gives_the_logits_of_the_model(family: str, compiled: bool) -> None:
    """Three rows: a prompt in two pieces, one id by id, and one that joins late."""
    if compiled and shutil.which("g++") is None:
        pytest.skip("needs g++")
    model = odd(family)
    flat = FlatModel(model, native.of if compiled else None)
    assert flat.is_compiled == compiled
    ids = torch.randint(0, 37, (3, 21), generator=torch.Generator().manual_seed(3)).tolist()
    flat.cache.reserve(2, 16, {})
    first = flat.step([Piece(1, 0, ids[0][:9]), Piece(0, 0, ids[1][:1])])
    flat.cache.reserve(4, 32, {0: 1, 1: 9})  # grows: what is written stays
    flat.step([Piece(1, 9, ids[0][9:20]), Piece(0, 1, ids[1][1:2])])
    for position in range(2, 20):
        flat.step([Piece(0, position, [ids[1][position]])])
    flat.step([Piece(3, 0, ids[2][:20])])
    last = flat.step([Piece(slot, 20, [ids[row][20]]) for row, slot in enumerate([1, 0, 3])])
    with torch.no_grad():
        expected = model(torch.tensor(ids))
    torch.testing.assert_close(last, expected[:, 20], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(first, torch.stack([expected[0, 8], expected[1, 0]]), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape_of", [(96, 288), (288, 96), (96, 2048), (16, 8), (8, 16), (20, 38)])
def test_product_gives_equal_rows_for_four_and_more(shape_of: tuple[int, int]) -> None:
    """The property of torch's kernels on which decoding.py stands; where it fails, rows depend on their neighbours."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape_of[1], shape_of[0], generator=generator)
    x = torch.randn(256, shape_of[0], generator=generator)
    whole = F.linear(x, weight)
    for rows in (4, 8, 12, 20, 32, 100):
        assert torch.equal(F.linear(x[:rows], weight), whole[:rows])


def test_flat_model_refuses_a_classifier_without_a_language_head() -> None:
    model = network(labels=2)
    model.head = None
    with pytest.raises(UserError, match="classifier without a language head"):
        FlatModel(model)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_native_step_is_left_out_where_it_does_not_compute_the_same() -> None:
    """Lost otherwise: an adapter, or weights in bfloat16, would be read as plain float32 weights."""
    from tests import variants

    model = network("llama").eval()
    assert FlatModel(model, native.of).is_compiled
    with torch.autocast("cpu", torch.bfloat16):
        assert not FlatModel(model, native.of).is_compiled
    hooked = network("llama").eval()
    hooked.blocks[1].mlp.down.register_forward_hook(lambda *_: None)
    assert not FlatModel(hooked, native.of).is_compiled
    adapted = network("llama").eval()
    variants.build("tuners", "lora").apply(adapted, torch.Generator().manual_seed(1), lambda text: [])
    assert not FlatModel(adapted, native.of).is_compiled
    lowered = network("llama").eval().bfloat16()
    assert not FlatModel(lowered, native.of).is_compiled


def test_library_is_none_where_the_compiler_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost otherwise: a machine without a working compiler could not decode."""

    def fails(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "g++")

    monkeypatch.setattr(native, "CODE", tmp_path)
    monkeypatch.setattr(subprocess, "run", fails)
    assert native.library.__wrapped__() is None
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert native.library.__wrapped__() is None
    assert not list(tmp_path.rglob("*.so"))
