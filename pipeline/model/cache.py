"""Past keys and values: a learned prefix, or the KV cache of generation.

Prefix tuning and the KV cache are one mechanism: in both, attention of every layer gets keys and values of earlier
positions before the new tokens' own.

Shapes: B batch, G key-value heads, P prefix, T new tokens, S past + new tokens, K head_dim.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.model.config import ModelConfig

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B or 1, G, P, K]."""


class Past(Protocol):
    """Keys and values before the new tokens."""

    @property
    def length(self) -> int:
        """The number of past positions."""

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Past and new keys and values of a layer: each [B, G, S, K]."""


class Prefix:
    """Learned keys and values before the first token of every layer (prefix tuning, Li and Liang 2021)."""

    def __init__(self, layers: Sequence[KeyValue]) -> None:
        self.layers = layers

    @property
    def length(self) -> int:
        """The number of positions it takes."""
        return self.layers[0][0].shape[2]

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Concatenates, so that gradients reach the prefix."""
        k_GPK, v_GPK = (x.expand(k_BGTK.shape[0], -1, -1, -1) for x in self.layers[layer])
        return torch.cat((k_GPK, k_BGTK), 2), torch.cat((v_GPK, v_BGTK), 2)


class KVRecorder:
    """Records every layer's keys and values, gradients included, to make a prefix of a soft prompt."""

    length = 0

    def __init__(self) -> None:
        self.layers: list[KeyValue] = []

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Records them and returns them as they are; there are no past ones."""
        assert layer == len(self.layers)
        self.layers.append((k_BGTK, v_BGTK))
        return k_BGTK, v_BGTK

    def advance(self, _tokens: int) -> None:
        """Does nothing: it is filled in one pass."""


class KVCache:
    """Keys and values of the tokens so far: `capacity` positions, written in place."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._layers: dict[int, Tensor] = {}  # keys and values, [2, B, G, capacity, K]

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Stores the new keys and values of a layer; raises ValueError when there is no room."""
        end = self.length + k_BGTK.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache has room for {self.capacity} positions, {end} were asked for")
        if layer not in self._layers:
            B, G, _, K = k_BGTK.shape
            # In autocast the tokens' keys and values have lower precision than a learned prefix, which is written
            # first; attention needs one precision for both.
            device = k_BGTK.device.type
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else k_BGTK.dtype
            self._layers[layer] = k_BGTK.new_empty(2, B, G, self.capacity, K, dtype=dtype)
        both = self._layers[layer]
        keys, values = both[0], both[1]
        keys[:, :, self.length : end], values[:, :, self.length : end] = k_BGTK, v_BGTK
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts the new positions, after all layers have stored theirs."""
        self.length += tokens


class StaticKVCache(KVCache):
    """A KV cache whose decoding steps have the same shapes and addresses every time, as a CUDA graph needs them.

    Prompt and prefix are written as in `KVCache`. After `start_decoding` each step is one token, written at
    `write_position`, and attention reads the whole capacity under a mask.
    """

    write_position: Tensor | None = None
    """Where the next token is written, [1]; none: still at the prompt."""

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Stores the new keys and values of a layer; returns the keys and values of all positions."""
        if self.write_position is None:
            return super().extend(layer, k_BGTK, v_BGTK)
        # index_copy_ casts nothing itself
        new = torch.stack((k_BGTK, v_BGTK)).to(self.dtype)
        both = self._layers[layer].index_copy_(3, self.write_position, new)
        return both[0], both[1]

    def advance(self, tokens: int) -> None:
        """Counts only positions of the prompt: `length` is a constant of the code that is compiled for the steps."""
        if self.write_position is None:
            super().advance(tokens)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the stored keys and values."""
        return next(iter(self._layers.values())).dtype

    def start_decoding(self, device: torch.device) -> None:
        """Ends the prompt. Positions not yet written become 0: a mask hides numbers, but NaN times 0 is NaN."""
        self.write_position = torch.full((1,), self.length, device=device)
        for both in self._layers.values():
            both[:, :, :, self.length :] = 0


class RowCache:
    """Keys and values of rows of different lengths, each in a slot of its own; for decoding on a CPU.

    Memory: 2 L G K numbers a position, `slots` times `capacity` positions at most; the system commits only written
    positions. `reserve` grows it by a copy of them.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.slots = self.capacity = 0
        self._shape = (config.n_layers, config.n_kv_heads, config.head_dim)
        self.dtype, self._device = dtype, device
        self.store = self._empty(0, 0)
        """[L, 2, slots, C, G, K]."""
        self._arrange()

    def reserve(self, slots: int, capacity: int, written: Mapping[int, int]) -> None:
        """Makes room for so many rows of so many positions each.

        Args:
            slots: rows, at least.
            capacity: positions of each, at least.
            written: slot -> number of its first positions that are kept.
        """
        if slots <= self.slots and capacity <= self.capacity:
            return
        slots, capacity = max(slots, self.slots), max(capacity, self.capacity)
        before, self.store = self.store, self._empty(slots, capacity)  # raises before anything has changed
        self.slots, self.capacity = slots, capacity
        for slot, length in written.items():
            self.store[:, :, slot, :length] = before[:, :, slot, :length]
        self._arrange()

    def write(self, layer: int, places_N: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> None:
        """Stores keys and values of a layer; a place is slot times capacity plus position."""
        keys, values = self._flat[layer]
        keys.index_copy_(0, places_N, k_NGK.to(self.dtype))
        values.index_copy_(0, places_N, v_NGK.to(self.dtype))

    def views(self, slot: int, slots: int, first: int, end: int) -> list[KeyValue]:
        """Keys and values of rows side by side, from position `first` to before `end`, of every layer.

        Each is [slots, G, S, K].
        """
        parts = self._rows.narrow(1, slot, slots).narrow(3, first, end - first).unbind(0)
        return list(zip(parts[::2], parts[1::2], strict=True))

    def fill(self, slot: int, prefix: Sequence[KeyValue]) -> None:
        """Writes a prefix, each part [1, G, P, K], to the first positions of a slot."""
        P = prefix[0][0].shape[2]
        for (keys, values), (k, v) in zip(self.views(slot, 1, 0, P), prefix, strict=True):
            keys.copy_(k)
            values.copy_(v)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copies the first positions of a slot to another."""
        self.store[:, :, target, :length] = self.store[:, :, source, :length]

    def _empty(self, slots: int, capacity: int) -> Tensor:
        L, G, K = self._shape
        return torch.empty(L, 2, slots, capacity, G, K, dtype=self.dtype, device=self._device)

    def _arrange(self) -> None:
        """Views of the store, made once: by layer for writing, [2 L, slots, G, C, K] for attention."""
        L, G, K = self._shape
        self._flat = [(both[0], both[1]) for both in self.store.view(L, 2, self.slots * self.capacity, G, K)]
        self._rows = self.store.permute(0, 1, 2, 4, 3, 5).flatten(0, 1)


def length_of(past: Past | None) -> int:
    """The number of past positions; 0 for none."""
    return 0 if past is None else past.length


def starts_text(cache: KVCache | KVRecorder | None) -> bool:
    """Whether a pass with this cache is the first of its text, before which virtual tokens belong."""
    return cache is None or (isinstance(cache, KVCache) and not cache.length)


def past_of(
    prefix: Sequence[KeyValue] | None, cache: KVCache | KVRecorder | None, batch: int, n_layers: int
) -> Past | None:
    """Keys and values before the new tokens of a pass: the cache, with the prefix written into it, or the prefix.

    Raises:
        ValueError: a prefix of another number of layers, or one beside a cache that is not empty.
    """
    if prefix is not None and len(prefix) != n_layers:
        raise ValueError(f"the prefix has {len(prefix)} layers, the model {n_layers}")
    if cache is None:
        return None if prefix is None else Prefix(prefix)
    if prefix is not None:
        if cache.length:
            raise ValueError("a prefix goes into an empty cache; later calls read it from there")
        for layer, (k, v) in enumerate(prefix):
            cache.extend(layer, k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1))
        cache.advance(prefix[0][0].shape[2])
    return cache
