"""Decoding steps of fixed shapes, one token per row, on a GPU replayed as a CUDA graph.

Launching the kernels of a small model's step takes longer than running them; a graph launches all at once, and a
compiled step (`GPT.static_shapes`) has fewer of them.

Shapes: B rows, T positions of the prompts, C capacity of the cache, V vocabulary.
"""

import math

import torch
from torch import Tensor

from pipeline.model.cache import StaticKVCache
from pipeline.model.gpt import GPT
from pipeline.model.layout import within_window

_WARM_UP = 3  # steps before a capture, as torch's documentation of CUDA graphs has it
# A capture costs the warm-up and itself; for fewer steps than a few times that, plain steps are as fast.
_LEAST_STEPS = 4 * (_WARM_UP + 1)


class Decoder:
    """Decoding steps after prompts whose keys and values are in the cache."""

    def __init__(self, model: GPT, cache: StaticKVCache, real_BT: Tensor) -> None:
        """Prepares at most as many steps as the cache has room for.

        Args:
            model: in evaluation mode.
            cache: filled with the prompts.
            real_BT: false on the padding before shorter prompts.
        """
        B, T = real_BT.shape
        cache.start_decoding(real_BT.device)
        self._model, self._cache = model, cache
        self._length = cache.length
        self._positions_C = torch.arange(cache.capacity, device=real_BT.device)
        self._padding_B1 = T - real_BT.sum(1, keepdim=True)
        before = cache.length - T  # a prefix
        self._real_BC = (self._positions_C < before) | (self._positions_C >= before + self._padding_B1)
        self._ids_B1 = torch.zeros(B, 1, dtype=torch.long, device=real_BT.device)
        # A bound method would make a reference cycle, and cache and graph would be kept until garbage collection.
        self._run = torch.compile(Decoder._plain) if model.static_shapes else Decoder._plain
        self._graph: torch.cuda.CUDAGraph | None = None
        self._replays = real_BT.device.type == "cuda" and cache.capacity - cache.length >= _LEAST_STEPS

    @torch.inference_mode()
    def step(self, ids_B1: Tensor) -> Tensor:
        """Logits of the next ids, [B, V], from the newest; on a GPU the next step overwrites them."""
        assert self._cache.write_position is not None
        self._cache.write_position.fill_(self._length)
        self._ids_B1.copy_(ids_B1)
        self._length += 1
        return self._replayed() if self._replays else self._run(self)

    def _plain(self) -> Tensor:
        """One step at the cache's write position; run again it writes the same again."""
        position = self._cache.write_position
        assert position is not None
        # a mask to add to scores: of a boolean one every layer would make such a mask anew
        seen_BC = self._real_BC & (self._positions_C <= position)
        seen_BC = within_window(seen_BC, self._model.config.window_within(self._cache.capacity))
        mask = torch.where(seen_BC, 0.0, -math.inf).to(self._cache.dtype)[:, None, None]
        # finished rows are computed on with the others; their positions stay inside the context
        positions_B1 = (position - self._padding_B1).clamp(max=self._model.config.context_length - 1)
        x_B1D = self._model.hidden(self._ids_B1, mask=mask, positions_BT=positions_B1, cache=self._cache)
        return self._model.logits(x_B1D[:, -1])

    def _replayed(self) -> Tensor:
        if self._graph is None:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's class
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    self._run(self)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits_BV = self._run(self)
        self._graph.replay()
        return self._logits_BV
