"""document_mask.py: in each of its forms a token attends to its own document alone."""

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from pipeline.model import document_mask
from pipeline.model.adapters import LearnedPrefix
from pipeline.model.capture import Capture
from pipeline.model.gpt import GPT
from pipeline.model.layout import layout_of
from tests.models import network

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat")
IDS = torch.randint(1, 30, (3, 12), generator=torch.Generator().manual_seed(5))
SHORT = torch.tensor([[0] * 3 + [1] * 4 + [2] * 5, [0] * 6 + [1] * 6, [0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]])
LONG = torch.tensor([[0] * 12, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [0] * 11 + [1]])
"""Rows of documents would hold mostly padding."""


def learned(model: GPT, segments: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    hidden = model.hidden(IDS, segments_BT=segments)
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return hidden.detach(), found


def forms(model: GPT, segments: torch.Tensor) -> list[str]:
    """The forms of the document mask that a pass of the model would use: none or one."""
    packed = document_mask.packed(segments, use_rows=not model.static_shapes, use_flex=False)
    return [name for name in ("rows", "mask", "block_mask") if getattr(packed, name) is not None]


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_gives_the_same_numbers_and_gradients_as_rows_and_as_mask(family: str) -> None:
    model = network(family)
    assert forms(model, SHORT) == ["rows"]
    by_rows = learned(model, SHORT)
    model.static_shapes = True
    assert forms(model, SHORT) == ["mask"]
    by_mask = learned(model, SHORT)
    torch.testing.assert_close(by_rows[0], by_mask[0], atol=1e-5, rtol=0)
    for one, other in zip(by_rows[1], by_mask[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_packed_uses_a_mask_when_rows_would_be_mostly_padding() -> None:
    model = network("llama")
    assert forms(model, LONG) == ["mask"]
    torch.testing.assert_close(model(IDS, segments_BT=LONG)[0], model(IDS)[0])


def test_packed_uses_no_mask_for_one_document_a_window() -> None:
    model = network("llama")
    assert forms(model, torch.zeros_like(LONG)) == []
    assert torch.equal(model(IDS, segments_BT=torch.zeros_like(LONG)), model(IDS))


def test_block_mask_equals_the_mask() -> None:
    """Uncompiled FlexAttention evaluates the mask alone; compiled on a GPU it also skips blocks of 128."""
    segments = (torch.rand(2, 300, generator=torch.Generator().manual_seed(3)) < 0.01).cumsum(1)
    q, k, v = (torch.randn(2, 2, 300, 8, generator=torch.Generator().manual_seed(n)) for n in range(3))
    mask = document_mask.mask(document_mask.positions(segments))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
    blocks = document_mask.block_mask(document_mask.positions(segments))
    torch.testing.assert_close(document_mask.flex(q, k, v, blocks), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.3])
@pytest.mark.parametrize("length", [32, 300, 512])
def test_block_mask_equals_that_of_torch(length: int, share: float) -> None:
    """Needed blocks and those that need no mask inside are those of create_block_mask."""
    segments = (torch.rand(4, length, generator=torch.Generator().manual_seed(3)) < share).cumsum(1)
    blocks = document_mask.block_mask(document_mask.positions(segments))

    def same_document(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        return (q >= kv) & (segments[b, q] == segments[b, kv])

    theirs = create_block_mask(same_document, 4, None, length, length, device="cpu")
    assert blocks.shape == theirs.shape
    listed = ("kv_num_blocks", "kv_indices", "q_num_blocks", "q_indices")
    for name in (*listed, *(f"full_{name}" for name in listed)):
        assert torch.equal(getattr(blocks, name), getattr(theirs, name)), name


@pytest.mark.parametrize(("head_dim", "blocks"), [(8, False), (16, True)])
def test_layout_uses_a_mask_for_heads_too_narrow_for_flex(
    head_dim: int, blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's compiler refuses them, in the first update on a GPU."""
    monkeypatch.setattr(document_mask, "_FLEX_DEVICE", "cpu")
    model = network("llama", head_dim=head_dim)
    model.static_shapes = True
    attended = layout_of(model, SHORT.shape[1], None, {"segments_BT": SHORT}).inputs
    assert (attended.block_mask is not None, attended.mask is not None) == (blocks, not blocks)


def test_packed_documents_each_see_the_prefix() -> None:
    model = network("qwen3")
    shape = model.config
    flat = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim
    model.virtual = LearnedPrefix(torch.randn(3, flat, generator=torch.Generator().manual_seed(7)))
    alone = model(IDS[:1, 3:7])
    for model.static_shapes in (False, True):
        torch.testing.assert_close(model(IDS, segments_BT=SHORT)[:1, 3:7], alone, atol=1e-5, rtol=0)


def test_capture_records_whole_windows_of_packed_documents() -> None:
    model = network("llama").requires_grad_(False)
    shown = Capture(hidden=[1], attentions=[1])
    with model.capturing(shown):
        model(IDS, segments_BT=SHORT)
    assert shown.hidden[1].shape == (3, 12, 16)
    assert shown.attentions[1].shape == (3, 2, 12, 12)
    assert float(shown.attentions[1][0, :, 3:, :3].abs().max()) == 0.0  # the second document does not see the first


@pytest.mark.parametrize("other", [{"mask": torch.ones(3, 12, dtype=torch.bool)}, {"positions_BT": torch.zeros(3, 12)}])
def test_hidden_refuses_segments_beside_mask_or_positions(other: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="segments_BT replaces mask and positions"):
        network("llama")(IDS, segments_BT=SHORT, **other)
