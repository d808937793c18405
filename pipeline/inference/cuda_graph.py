"""Decoding with fixed shapes: one token a row and step, on a GPU replayed as one CUDA graph instead of launched anew.

A small model's step for a few rows takes less time than launching its kernels; a graph launches them all at once, and a
compiled step (`GPT.fixed`) has fewer, which pays where many thousands are made.

Shapes: B rows, T positions of the prompts, C capacity of the cache, V vocabulary.
"""

import math

import torch
from torch import Tensor

from pipeline.model.cache import StaticKVCache
from pipeline.model.gpt import GPT

_WARM = 3  # steps before a capture, as torch's documentation of CUDA graphs has it
# A capture costs the warm-up and itself; for fewer steps than a few times that, plain steps are as fast.
_WORTH = 4 * (_WARM + 1)


class Decoder:
    """The steps after prompts that stand in `cache` already."""

    def __init__(self, model: GPT, cache: StaticKVCache, real_BT: Tensor) -> None:
        """`real_BT`: false on the padding before shorter prompts. What `cache` has room for is what may come."""
        B, T = real_BT.shape
        cache.start_decoding(real_BT.device)
        self._model, self._cache = model, cache
        self._length = cache.length
        self._places_C = torch.arange(cache.capacity, device=real_BT.device)
        self._padding_B1 = T - real_BT.sum(1, keepdim=True)
        before = cache.length - T  # a prefix
        self._real_BC = (self._places_C < before) | (self._places_C >= before + self._padding_B1)
        self._ids_B1 = torch.zeros(B, 1, dtype=torch.long, device=real_BT.device)
        # Not bound to this object, which would hold itself, its cache and its graph until garbage is collected.
        self._run = torch.compile(Decoder._plain) if model.static_shapes else Decoder._plain
        self._graph: torch.cuda.CUDAGraph | None = None
        self._replays = real_BT.device.type == "cuda" and cache.capacity - cache.length >= _WORTH

    @torch.inference_mode()
    def step(self, ids_B1: Tensor) -> Tensor:
        """The newest ids -> the logits of the next, [B, V]; on a GPU the next step writes over them."""
        assert self._cache.write_position is not None
        self._cache.write_position.fill_(self._length)
        self._ids_B1.copy_(ids_B1)
        self._length += 1
        return self._replayed() if self._replays else self._run(self)

    def _plain(self) -> Tensor:
        """One step at `at`; run again it writes the same again."""
        at = self._cache.write_position
        assert at is not None
        # added to scores, because every layer would make such a one of a boolean mask
        seen_BC = self._real_BC & (self._places_C <= at)
        mask = torch.where(seen_BC, 0.0, -math.inf).to(self._cache.dtype)[:, None, None]
        # rows that are done or have no room go on as ballast; their positions stay inside the context
        positions_B1 = (at - self._padding_B1).clamp(max=self._model.config.context_length - 1)
        x_B1D = self._model.hidden(self._ids_B1, mask=mask, positions_BT=positions_B1, cache=self._cache)
        return self._model.logits(x_B1D[:, -1])

    def _replayed(self) -> Tensor:
        if self._graph is None:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM):
                    self._run(self)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits_BV = self._run(self)
        self._graph.replay()
        return self._logits_BV
