"""What stands before the new tokens: keys and values of a learned prefix, or of the tokens seen so far.

Prefix tuning and the generation cache are one mechanism: both hand every layer its keys and values with
something in front. Shapes: B batch, G key-value heads, P prefix, T new tokens, S past + new tokens, K
head_dim.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [B or 1, G, P, K]."""


class Past(Protocol):
    """Keys and values that stand before the new tokens."""

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Past and new keys and values of a layer: each [B, G, S, K]."""


class Prefix:
    """Learned keys and values before the first token of every layer (prefix tuning, Li and Liang 2021)."""

    def __init__(self, layers: Sequence[KeyValue]) -> None:
        self.layers = layers

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Concatenates, so that gradients reach the prefix."""
        k_GPK, v_GPK = (x.expand(k_BGTK.shape[0], -1, -1, -1) for x in self.layers[layer])
        return torch.cat((k_GPK, k_BGTK), 2), torch.cat((v_GPK, v_BGTK), 2)


class Recorder:
    """Keeps every layer's keys and values as they pass, gradients included: a soft prompt becomes a prefix."""

    length = 0

    def __init__(self) -> None:
        self.layers: list[KeyValue] = []

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Nothing stands before them."""
        self.layers.append((k_BGTK, v_BGTK))
        return k_BGTK, v_BGTK

    def advance(self, tokens: int) -> None:
        """All layers have passed."""


class Cache:
    """Keys and values of the tokens seen so far: room for `capacity` positions, written in place."""

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
            # A learned prefix comes first and is exact; what follows it in autocast is not, and attention reads neither
            # as anything else.
            device = k_BGTK.device.type
            dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else k_BGTK.dtype
            self._layers[layer] = k_BGTK.new_empty(2, B, G, self.capacity, K, dtype=dtype)
        both = self._layers[layer]
        keys, values = both[0], both[1]
        keys[:, :, self.length : end], values[:, :, self.length : end] = k_BGTK, v_BGTK
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, tokens: int) -> None:
        """Moves on after all layers stored their part."""
        self.length += tokens


class FixedCache(Cache):
    """A cache whose steps have the same shapes and addresses every time, as a CUDA graph needs them.

    Prompt and prefix are written as usual. Once `at` is set, a step is one token, written where that tensor says, and
    attention reads the whole capacity under a mask.
    """

    at: Tensor | None = None
    """Where the next token is written, [1]; none: still at the prompt."""

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> KeyValue:
        """Stores the new keys and values of a layer and gives what is read with them."""
        if self.at is None:
            return super().extend(layer, k_BGTK, v_BGTK)
        # index_copy_ casts nothing itself
        both = self._layers[layer].index_copy_(3, self.at, torch.stack((k_BGTK, v_BGTK)).to(self.dtype))
        return both[0], both[1]

    def advance(self, tokens: int) -> None:
        """Steps leave `length` where they began: it is part of what compiled code is made for."""
        if self.at is None:
            super().advance(tokens)

    @property
    def dtype(self) -> torch.dtype:
        """Of what is written."""
        return next(iter(self._layers.values())).dtype

    def begin(self, device: torch.device) -> None:
        """The prompt is written: from here on steps. What nobody wrote becomes 0, for a mask hides numbers, not NaN."""
        self.at = torch.full((1,), self.length, device=device)
        for both in self._layers.values():
            both[:, :, :, self.length :] = 0
