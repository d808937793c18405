"""varlen.py: leaving out padding changes no number."""

import pytest
import torch

from pipeline.model import varlen
from pipeline.model.adapters import LearnedPrefix, SoftPrompt
from pipeline.model.gpt import GPT
from tests.models import network

IDS = torch.randint(1, 30, (4, 9), generator=torch.Generator().manual_seed(5))
LAST = torch.zeros(4, 9, dtype=torch.bool)
LAST[torch.arange(4), torch.tensor([8, 2, 5, 0])] = True
SOME = torch.rand(4, 9, generator=torch.Generator().manual_seed(6)) < 0.3
SOME[3] = False  # a text of which nothing is wanted
WANTED = {"the last of each": LAST, "some of each": SOME, "all": torch.ones(4, 9, dtype=torch.bool)}


def made(family: str, virtual: str = "") -> GPT:
    model = network(family, n_layers=3)
    draw = torch.Generator().manual_seed(7)
    shape = model.config
    if virtual == "prefix":
        flat = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
        model.virtual = LearnedPrefix(torch.randn(3, flat, generator=draw))
    if virtual == "prompt":
        model.virtual = SoftPrompt(torch.randn(3, shape.d_model, generator=draw))
    return model


def learned(model: GPT, wanted: torch.Tensor, leave_out: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The wanted hidden states and every weight's gradient, with or without computing the others."""
    hidden = model.hidden(IDS, wanted_BT=wanted) if leave_out else model.hidden(IDS)[wanted]
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return hidden.detach(), found


@pytest.mark.parametrize("virtual", ["", "prefix", "prompt"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat"])
@pytest.mark.parametrize("wanted", WANTED)
def test_hidden_equals_the_whole_batch_and_its_gradients_at_wanted_positions(
    family: str, virtual: str, wanted: str
) -> None:
    model = made(family, virtual)
    fast, slow = (learned(model, WANTED[wanted], leave_out) for leave_out in (True, False))
    torch.testing.assert_close(fast[0], slow[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(fast[1], slow[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("learns", [False, True])
def test_hidden_runs_compiled_blocks_on_flat_batches(learns: bool) -> None:
    """With gradients and, as in validation, without: torch 2.11 compiles its Functions differently there."""
    model = made("qwen3")
    with torch.set_grad_enabled(learns):
        expected = model.hidden(IDS, wanted_BT=SOME)
        for block in model.blocks:
            block.compile(backend="aot_eager")
        found = model.hidden(IDS, wanted_BT=SOME)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_hidden_differs_when_tokens_are_off_by_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken on purpose: the test above must fail when tokens come back to the wrong slots."""
    plain = varlen.PaddedRows.scatter_heads
    model = made("llama")
    right = learned(model, SOME, leave_out=True)[0]
    monkeypatch.setattr(varlen.PaddedRows, "scatter_heads", lambda self, x: plain(self, x.roll(1, 0)))
    assert not torch.allclose(learned(model, SOME, leave_out=True)[0], right, atol=1e-3)


def test_hidden_leaves_out_what_no_wanted_position_needs() -> None:
    """The point of it: tokens that the first block sees are those up to each text's last wanted one."""
    model, seen = made("llama"), []
    model.blocks[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape))
    model.blocks[-1].register_forward_hook(lambda module, arguments, out: seen.append(out.shape))
    model.hidden(IDS, wanted_BT=LAST)
    assert seen == [(9 + 3 + 6 + 1, 16), (4, 16)]


def test_hidden_is_empty_when_nothing_is_wanted() -> None:
    """Lost otherwise: answers that were all cut off would stop a run of hours."""
    model = made("llama")
    hidden = model.hidden(IDS, wanted_BT=torch.zeros_like(SOME))
    assert hidden.shape == (0, 16)
    hidden.sum().backward()


@pytest.mark.parametrize("virtual", ["", "prefix"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "nanochat"])
@pytest.mark.parametrize("wanted", WANTED)
def test_hidden_with_a_mask_of_its_own_equals_the_whole_batch_at_wanted_positions(
    family: str, virtual: str, wanted: str
) -> None:
    """Rows whose tokens attend to some of those before them, as texts that share a beginning do."""
    model = made(family, virtual)
    past = 3 if virtual else 0
    mask = torch.rand(4, 1, 9, 9 + past, generator=torch.Generator().manual_seed(8)) < 0.6
    mask &= torch.ones(9, 9 + past, dtype=torch.bool).tril(past)
    mask |= torch.eye(9 + past, dtype=torch.bool)[past:]  # each attends to itself
    places = past + torch.arange(9)[None].expand(4, 9)
    with torch.no_grad():
        expected = model.hidden(IDS, mask=mask, positions_BT=places)[WANTED[wanted]]
        found = model.hidden(IDS, mask=mask, positions_BT=places, wanted_BT=WANTED[wanted])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
