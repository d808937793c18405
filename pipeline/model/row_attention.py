"""Attention of one decoding step: rows of different lengths, each over exactly its own keys in the cache.

Rows of equal length that lie side by side in the cache are one call. The kernel computes every row of a call by itself,
so its numbers are those of a call of its own (`tests/model/test_row_attention.py`).

Shapes: N tokens of all rows, padded; T tokens of a row, S past and new ones, P rows of all calls, H query heads, G
key-value heads, K head_dim.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.model.attention import repeat_heads
from pipeline.model.cache import KeyValue, RowCache
from pipeline.model.config import ModelConfig
from pipeline.model.layout import attention_mask

_GAP = 4  # slots of other rows between two of a call: computing them for nothing takes less time than another call


class Piece(NamedTuple):
    """New tokens of one row."""

    slot: int
    """Of the row in the cache."""
    past: int
    """Positions of the row before these tokens, a prefix included."""
    ids: Sequence[int]
    """One or more."""

    @property
    def end(self) -> int:
        """Positions of the row with these tokens."""
        return self.past + len(self.ids)


class PieceAttention:
    """Attention of pieces of several tokens, a call for each; the cache holds their keys and values."""

    def __init__(self, config: ModelConfig, cache: RowCache, pieces: Sequence[Piece]) -> None:
        self._config, self._pieces = config, pieces
        first = [_first(config, piece.end) if len(piece.ids) == 1 else 0 for piece in pieces]
        self._keys = [cache.views(p.slot, 1, start, p.end) for p, start in zip(pieces, first, strict=True)]

    def __call__(self, layer: int, q_NHK: Tensor) -> Tensor:
        """Outputs with heads joined, [N, H K]; 0 where padded."""
        lengths = [len(piece.ids) for piece in self._pieces]
        parts = q_NHK[: sum(lengths)].split(lengths)  # type: ignore[no-untyped-call]  # torch's method
        outputs = [
            self._attended(q_THK, keys[layer], piece)
            for q_THK, keys, piece in zip(parts, self._keys, self._pieces, strict=True)
        ]
        return _padded(torch.cat(outputs), len(q_NHK))

    def _attended(self, q_THK: Tensor, keys: KeyValue, piece: Piece) -> Tensor:
        T, H, G, K = len(piece.ids), self._config.n_heads, self._config.n_kv_heads, self._config.head_dim
        if T == 1:
            return F.scaled_dot_product_attention(q_THK.view(1, G, H // G, K), *keys).reshape(1, H * K)
        window = self._config.window_within(piece.end)
        mask, causal = attention_mask(None, T, piece.past, q_THK.device, window)
        k_BHSK, v_BHSK = (repeat_heads(x, H) for x in keys)
        y_BHTK = F.scaled_dot_product_attention(q_THK.transpose(0, 1)[None], k_BHSK, v_BHSK, mask, 0.0, causal)
        return y_BHTK[0].transpose(0, 1).reshape(T, H * K)


class TokenAttention:
    """Attention of the last token of every piece, in as few calls as rows of equal length allow."""

    def __init__(self, config: ModelConfig, cache: RowCache, pieces: Sequence[Piece]) -> None:
        self._config = config
        runs = _runs(pieces)
        queries: list[int] = []  # of the rows of all calls; a slot of another row gets the first one's
        places = [0] * len(pieces)
        for run in runs:
            at = {pieces[number].slot: number for number in run}
            first = pieces[run[0]].slot
            slots = range(first, pieces[run[-1]].slot + 1)
            for slot in slots:
                if slot in at:
                    places[at[slot]] = len(queries)
                queries.append(at.get(slot, run[0]))
        self._keys = []
        self._sizes = []
        for run in runs:
            first, last, end = pieces[run[0]].slot, pieces[run[-1]].slot, pieces[run[0]].end
            self._sizes.append(last + 1 - first)
            self._keys.append(cache.views(first, last + 1 - first, _first(config, end), end))
        ordered = queries == list(range(len(pieces)))
        self._count = len(pieces)
        self._queries_P = None if ordered else torch.tensor(queries)
        self._places_B = None if ordered else torch.tensor(places)

    def __call__(self, layer: int, q_NHK: Tensor) -> Tensor:
        """Outputs with heads joined, [N, H K]; 0 where padded."""
        H, G, K = self._config.n_heads, self._config.n_kv_heads, self._config.head_dim
        q_PHK = q_NHK[: self._count] if self._queries_P is None else q_NHK.index_select(0, self._queries_P)
        # query heads that share a key-value head are rows of one product: no key is copied for them
        parts = q_PHK.view(-1, G, H // G, K).split(self._sizes)  # type: ignore[no-untyped-call]  # torch's method
        outputs = [F.scaled_dot_product_attention(q, *keys[layer]) for q, keys in zip(parts, self._keys, strict=True)]
        y_PX = (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).reshape(-1, H * K)
        return _padded(y_PX if self._places_B is None else y_PX.index_select(0, self._places_B), len(q_NHK))


def _runs(pieces: Sequence[Piece]) -> list[list[int]]:
    """Numbers of the pieces of each call: equal lengths, in the order of their slots, without large gaps."""
    runs: list[list[int]] = []
    end, slot = -1, 0
    for number in sorted(range(len(pieces)), key=lambda number: (pieces[number].end, pieces[number].slot)):
        piece = pieces[number]
        if piece.end != end or piece.slot > slot + 1 + _GAP:
            runs.append([])
        runs[-1].append(number)
        end, slot = piece.end, piece.slot
    return runs


def _first(config: ModelConfig, end: int) -> int:
    """The first position that a row's last token attends to: 0, or within the sliding window."""
    return 0 if config.sliding_window is None else max(0, end - config.sliding_window)


def _padded(y_NX: Tensor, rows: int) -> Tensor:
    missing = rows - len(y_NX)
    return F.pad(y_NX, (0, 0, 0, missing)) if missing else y_NX
