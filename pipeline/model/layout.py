"""Positions and attention masks of one forward pass, for batches with padding, without it, and packed.

A batch comes as rows of tokens, [B, T]. Where the caller needs the output of some positions only, or packs documents
into rows, most of the pass runs on a flat list of the tokens that matter, [N, D]: norms, projections and the MLP treat
each token separately. Only attention needs rows. A `Layout` holds the position ids and the inputs of attention besides
the hidden states (`AttentionInputs`).

Shapes: B rows, T new tokens of a row, P past tokens (prefix or cache), S = P + T, N tokens of a flat batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.cache import KeyValue, KVCache, KVRecorder, Past, length_of
from pipeline.model.capture import Capture
from pipeline.model.cpu import explicit
from pipeline.model.document_mask import flex_fits, packed
from pipeline.model.varlen import PaddedRows, Slots, unpad

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from pipeline.model.gpt import GPT


class ForwardInputs(TypedDict, total=False):
    """Inputs of a forward pass besides token ids; all are optional."""

    embeddings_BTD: Tensor | None
    """Token embeddings instead of the ids' rows of `embed`; positions are not yet added."""
    mask: Tensor | None
    """None: causal. Boolean [B, T] or [B, S]: causal, and false keys (padding) are not attended to. [B, 1 or H, T, S]:
    the whole attention mask, causality included, boolean (true: may attend) or added to the scores."""
    positions_BT: Tensor | None
    """Position ids, [B or 1, T]; none: counted on from prefix and cache."""
    segments_BT: Tensor | None
    """Documents packed into one row, a number per token that differs between neighbours: each attends only to itself,
    with positions from its start. Instead of mask and positions, and without a cache."""
    prefix: Sequence[KeyValue] | None
    """Keys and values before the first token, one pair per layer. With a cache: written into the empty cache."""
    cache: KVCache | KVRecorder | None
    """Read and extended in place; a KVCache not for training."""
    wanted_BT: Tensor | None
    """Boolean; hidden states only at these positions, [N, D] in their order. Without a mask, cache or capture nothing
    is computed on which they do not depend, such as padding on the right."""


class AttentionInputs(NamedTuple):
    """Inputs of attention besides the hidden states; the same for all blocks but the last."""

    mask: Tensor | None = None
    """Which keys each query may attend to, as scaled_dot_product_attention takes it; none: see `is_causal`."""
    is_causal: bool = False
    """Each query attends to its own position and all before it; a mask, if there is one, is consistent with it."""
    key_rows: PaddedRows | None = None
    """Slots of a flat batch's keys and values in padded rows; none: the batch is [B, T] already."""
    query_rows: PaddedRows | None = None
    """The same for its queries."""
    queries: Slots | None = None
    """Query positions among the tokens; in the last block only those whose output is needed; none: all."""
    block_mask: "BlockMask | None" = None
    """The mask as FlexAttention takes it; then `mask` is none."""
    rope: tuple[Tensor, Tensor] | None = None
    """Cosines and sines of rotary positions (rotary.py); none with learned positions."""
    past: Past | None = None
    """Keys and values before the new tokens: a prefix or a KV cache."""
    capture: Capture | None = None

    def select_queries(self, x: Tensor) -> Tensor:
        """The tokens that are queries, [N, ...] -> [M, ...]: all of them but in the last block."""
        return x if self.queries is None else self.queries.gather(x)

    def in_rows(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values in padded rows: [N, H, K] of a flat batch -> [B, H, T, K]."""
        if self.query_rows is not None:
            q = self.query_rows.scatter_heads(q)
        if self.key_rows is not None:
            k, v = self.key_rows.scatter_heads(k), self.key_rows.scatter_heads(v)
        return q, k, v

    def out_of_rows(self, x_BTX: Tensor) -> Tensor:
        """The inverse for attention's output: [B, T, X] -> [M, X] of a flat batch."""
        return x_BTX if self.query_rows is None else self.query_rows.gather(x_BTX.flatten(0, 1))


class Layout(NamedTuple):
    """Position ids of a pass and the inputs of its attention."""

    positions: Tensor
    """[B or 1, T]; of a flat batch [N]."""
    inputs: AttentionInputs
    """Of all blocks but the last."""
    last: AttentionInputs
    """Of the last block."""
    computed: PaddedRows | None = None
    """The tokens of the batch that are computed; none: all."""

    @property
    def is_flat(self) -> bool:
        """Whether hidden states are [N, D], not [B, T, D]."""
        return self.positions.dim() == 1

    def flatten(self, x_BT: Tensor) -> Tensor:
        """The tokens of the batch that are computed: [B, T, ...] -> [N, ...] of a flat batch, else as it is."""
        if not self.is_flat:
            return x_BT
        return x_BT.flatten(0, 1) if self.computed is None else self.computed.gather(x_BT.flatten(0, 1))

    def select_output(self, x: Tensor, B: int, T: int, wanted_BT: Tensor | None) -> Tensor:
        """Final hidden states in the shape that the caller requested: [B, T, D], or [N, D] at the wanted positions."""
        if self.computed is not None:  # the last block computed only the wanted positions
            return x
        x_BTD = x.unflatten(0, (B, T)) if self.is_flat else x  # type: ignore[no-untyped-call]  # torch's method
        return x_BTD if wanted_BT is None else x_BTD[wanted_BT]


def layout_of(model: "GPT", T: int, past: Past | None, inputs: ForwardInputs) -> Layout:
    """The layout of a pass over rows of T tokens.

    Raises:
        ValueError: inputs that exclude each other, a mask of another shape, or more tokens than the context has
            positions for.
    """
    mask, positions_BT, cache = inputs.get("mask"), inputs.get("positions_BT"), inputs.get("cache")
    segments_BT, wanted_BT = inputs.get("segments_BT"), inputs.get("wanted_BT")
    length, device = length_of(past), model.embed.weight.device
    if segments_BT is not None:
        if mask is not None or positions_BT is not None or cache is not None:
            raise ValueError("segments_BT replaces mask and positions, and excludes a cache")
        # Rows of documents have another shape in every batch; a block mask has no place for a prefix.
        static, dropout = model.static_shapes and not length, model.training and model.dropout > 0
        use_flex = static and not dropout and flex_fits(model.config.head_dim, segments_BT.device)
        captured = model.capture is not None
        window = model.config.window_within(length + T)
        use_flex = use_flex and not captured and window is None
        return packed_layout(segments_BT, length, not static and not captured, use_flex, window)
    if length + T > model.config.context_length and positions_BT is None:
        raise ValueError(f"{length + T} tokens do not fit in a context of {model.config.context_length}")
    window = model.config.window_within(length + T)
    layout = padded_layout(T, length, mask, positions_BT, device, window)
    if layout.inputs.is_causal and model.static_shapes and explicit.trains(T, device):
        attended = layout.inputs._replace(mask=explicit.causal_bias(T, device))
        layout = layout._replace(inputs=attended, last=attended)
    if wanted_BT is None or cache is not None or model.capture is not None:
        return layout
    if mask is not None:
        return unpadded_rows(layout, wanted_BT) if mask.dim() == 4 else layout
    return unpadded_layout(layout, length, wanted_BT, window)


def padded_layout(  # noqa: PLR0913 - each decides the layout by itself
    T: int,
    past: int,
    mask: Tensor | None,
    positions_BT: Tensor | None,
    device: torch.device,
    window: int | None = None,
) -> Layout:
    """The layout of a batch whose rows all have T tokens, padding included, behind `past` positions.

    `window`: positions that a token attends to, its own included (None: all before it).

    Raises:
        ValueError: a mask of another shape.
    """
    if positions_BT is None:
        positions_BT = torch.arange(past, past + T, device=device)[None]
    inputs = AttentionInputs(*attention_mask(mask, T, past, device, window))
    return Layout(positions_BT, inputs, inputs)


def unpadded_layout(padded: Layout, past: int, wanted_BT: Tensor, window: int | None = None) -> Layout:
    """The flat layout that leaves out all tokens on which no wanted position depends; `padded` if none is wanted."""
    flat = unpad(wanted_BT)
    if flat is None:
        return padded
    positions_N = flat.tokens.gather(padded.positions.expand(wanted_BT.shape).flatten())
    inputs = padded.inputs._replace(key_rows=flat.tokens, query_rows=flat.tokens)
    mask = F.pad(flat.mask, (past, 0), value=True)  # every query attends to the prefix
    mask = within_window(mask, window)
    last = AttentionInputs(mask, key_rows=flat.tokens, query_rows=flat.wanted, queries=flat.queries)
    return Layout(positions_N, inputs, last, flat.tokens)


def unpadded_rows(padded: Layout, wanted_BT: Tensor) -> Layout:
    """As `unpadded_layout`, for rows with a whole mask of their own, [B, 1 or H, T, S] (texts that share a trunk).

    No token may attend to one after it in its row.
    """
    flat, mask = unpad(wanted_BT), padded.inputs.mask
    if flat is None or mask is None:
        return padded
    positions_N = flat.tokens.gather(padded.positions.expand(wanted_BT.shape).flatten())
    inputs = padded.inputs._replace(key_rows=flat.tokens, query_rows=flat.tokens)
    place_BQ = flat.wanted.scatter_rows(wanted_BT.nonzero()[:, 1])
    mask = mask.expand(len(wanted_BT), *mask.shape[1:])
    last_mask = mask.take_along_dim(place_BQ[:, None, :, None], dim=2)
    last = AttentionInputs(last_mask, key_rows=flat.tokens, query_rows=flat.wanted, queries=flat.queries)
    return Layout(positions_N, inputs, last, flat.tokens)


def packed_layout(segments_BT: Tensor, past: int, use_rows: bool, use_flex: bool, window: int | None = None) -> Layout:
    """The layout of rows that hold several documents each; `document_mask.packed` chooses the implementation."""
    batch = packed(segments_BT, use_rows, use_flex)
    if batch.mask is not None:
        inputs = AttentionInputs(within_window(F.pad(batch.mask, (past, 0), value=True), window))
    elif batch.block_mask is not None:
        inputs = AttentionInputs(block_mask=batch.block_mask)
    else:
        T = segments_BT.shape[1] if batch.rows is None else batch.rows.shape[1]
        mask, is_causal = attention_mask(None, T, past, segments_BT.device, window)
        inputs = AttentionInputs(mask, is_causal, key_rows=batch.rows, query_rows=batch.rows)
    return Layout(batch.positions + past, inputs, inputs)


def attention_mask(
    mask: Tensor | None, T: int, past: int, device: torch.device, window: int | None = None
) -> tuple[Tensor | None, bool]:
    """(mask or None, is_causal) for scaled_dot_product_attention, from a mask as `GPT.forward` takes it.

    With a sliding `window` smaller than S each token attends to the last `window` keys that are no padding, its own
    included, so that padding between a prefix and a text changes nothing. A mask of four dimensions is used as it is.

    A token of padding still attends to itself: the softmax of a row without any key would be NaN, and spread.

    Raises:
        ValueError: another shape than [B, T], [B, S] or [B, 1 or H, T, S].
    """
    S = past + T
    window = window if window is not None and window < S else None
    if mask is None and window is not None:
        return within_window(causal_mask(T, S, device), window)[None, None], False
    if mask is None:
        if past == 0:
            return None, True
        return (None if T == 1 else causal_mask(T, S, device)), False
    if mask.dim() == 4:
        return mask, False
    if mask.dim() != 2 or mask.shape[1] not in (T, S):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected [B, {T}], [B, {S}] or [B, 1 or H, {T}, {S}]")
    keys_BS = F.pad(mask.bool(), (S - mask.shape[1], 0), value=True)
    itself_TS = F.pad(torch.eye(T, dtype=torch.bool, device=device), (past, 0))
    return within_window(keys_BS[:, None, None] & causal_mask(T, S, device), window) | itself_TS, False


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """[T, S], true where one of the T newest tokens may attend to one of S: itself and all before it."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)


def within_window(mask: Tensor, window: int | None) -> Tensor:
    """Of the keys that each query may attend to, [..., S], the last `window` ones; None: all of them."""
    return mask if window is None else mask & (mask.flip(-1).cumsum(-1).flip(-1) <= window)
