"""cpu/decode.cpp, compiled on first use: one decoding step of a float32 model in one call, with no dispatch a product.

    step = native.of(model)      # None: no C++ compiler, or a model that it does not compute
    logits_BV = step(x_BD, rope, rows)

At one token a row most of a small model's step is the calling of kernels, a few hundred of them; here one call makes
them all (`python -m tests.bench.decoding` compares both). Weights are read where torch has them: nothing is copied, and
a changed weight counts at the next step. The code is kept in `.tohum/compiled` beside this project's own, by the
processor and the source's hash.

Its logits are those of decoding.py up to rounding, so a text could differ where two ids are nearly alike. Therefore no
stage of the graph uses it: outs are the same with and without a C++ compiler. The server does, for models whose answers
it has compared (serving/compiled.py).
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.model.cache import RowCache
from pipeline.model.compilation import processor
from pipeline.model.cpu.linear import Linear
from pipeline.model.gpt import GPT, Block, FusedAttention, GatedMLP, RotaryAttention
from pipeline.paths import CODE

_SOURCE = "decode.cpp"
_OPTIONS = ["-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC"]
_SECONDS = 120  # for the compiler
_POINTER, _WHOLE = ctypes.c_void_p, ctypes.c_int64

_OF_LAYER = (
    "norm1", "norm1_bias", "q", "k", "v", "q_bias", "k_bias", "v_bias", "q_norm", "k_norm", "out", "out_bias", "norm2",
    "norm2_bias", "gate", "gate_bias", "up", "up_bias", "down", "down_bias", "keys", "values",
)  # fmt: skip


class _Layer(ctypes.Structure):
    """`Layer` of decode.cpp."""

    _fields_ = [(name, _POINTER) for name in _OF_LAYER]


class _Model(ctypes.Structure):
    """`Model` of decode.cpp."""

    _fields_ = [
        ("layers", ctypes.POINTER(_Layer)),
        *((name, _POINTER) for name in ("final_norm", "final_norm_bias", "head")),
        *((name, _WHOLE) for name in ("n_layers", "D", "H", "G", "K", "F", "V")),
        *((name, _WHOLE) for name in ("layer_norm", "rotary", "norms_heads", "rotates_first", "activation")),
        ("epsilon", ctypes.c_float),
    ]


class NativeStep:
    """The weights of one model and its cache, as decode.cpp reads them."""

    def __init__(self, library: ctypes.CDLL, model: GPT, cache: RowCache) -> None:
        self._library, self._cache, self._config = library, cache, model.config
        self._kept: list[Tensor] = []
        """Tensors whose memory is read."""
        self._layers = (_Layer * model.config.n_layers)(*(self._layer(block) for block in model.blocks))
        self._model = self._described(model)
        self._store: Tensor | None = None

    def __call__(
        self, x_BD: Tensor, rope: tuple[Tensor, Tensor] | None, rows: Sequence[tuple[int, int, int]]
    ) -> Tensor:
        """Writes keys and values of one token a row into the cache; the logits after it, [B, V].

        Args:
            x_BD: embedded tokens; overwritten.
            rope: cosines and sines, [B, 1, K]; none with learned positions.
            rows: slot, position of the token, and first position that it attends to.
        """
        if self._store is not self._cache.store:
            self._use(self._cache.store)
        count, capacity = len(rows), self._cache.capacity
        places = (_WHOLE * (3 * count))()
        for row, (slot, position, first) in enumerate(rows):
            places[3 * row : 3 * row + 3] = [slot * capacity, position, first]
        size = self._library.scratch(ctypes.byref(self._model), count, capacity)
        memory, logits_BV = x_BD.new_empty(size), x_BD.new_empty(count, self._config.vocab_size)
        cos, sin = (None, None) if rope is None else (rope[0].data_ptr(), rope[1].data_ptr())
        self._library.step(
            ctypes.byref(self._model), count, places, x_BD.data_ptr(), cos, sin, memory.data_ptr(),
            logits_BV.data_ptr(),
        )  # fmt: skip
        return logits_BV

    def _use(self, store: Tensor) -> None:
        """Points at the cache's memory, which moves when it grows."""
        for layer, both in zip(self._layers, store, strict=True):
            layer.keys, layer.values = both[0].data_ptr(), both[1].data_ptr()
        self._store = store

    def _described(self, model: GPT) -> _Model:
        shape, families = model.config, {"gpt2": 1, "arcee": 2, "nanochat": 2}
        head = model.head
        assert head is not None
        final = model.final_norm
        return _Model(
            layers=self._layers, final_norm=self._of(final, "weight"), final_norm_bias=self._of(final, "bias"),
            head=self._of(head, "weight"), n_layers=shape.n_layers, D=shape.d_model, H=shape.n_heads,
            G=shape.n_kv_heads, K=shape.head_dim, F=shape.d_ff, V=shape.vocab_size,
            layer_norm=shape.family == "gpt2", rotary=shape.family != "gpt2",
            norms_heads=shape.family in ("qwen3", "nanochat"), rotates_first=shape.family == "nanochat",
            activation=families.get(shape.family, 0), epsilon=shape.norm_epsilon,
        )  # fmt: skip

    def _layer(self, block: nn.Module) -> _Layer:
        assert isinstance(block, Block)
        attention, mlp = block.attention, block.mlp
        parts: dict[str, nn.Module] = {"norm1": block.norm1, "norm2": block.norm2, "out": attention.out}
        parts |= {"up": mlp.up, "down": mlp.down}
        if isinstance(mlp, GatedMLP):
            parts["gate"] = mlp.gate
        if isinstance(attention, RotaryAttention):
            parts |= {"q": attention.q, "k": attention.k, "v": attention.v}
        layer = _Layer()
        for name, module in parts.items():
            setattr(layer, name, self._of(module, "weight"))
            setattr(layer, f"{name}_bias", self._of(module, "bias"))
        if isinstance(attention, RotaryAttention):
            layer.q_norm, layer.k_norm = self._of(attention.q_norm, "weight"), self._of(attention.k_norm, "weight")
        if isinstance(attention, FusedAttention):
            weight, bias = attention.qkv.weight, attention.qkv.bias
            self._kept += [weight] if bias is None else [weight, bias]
            for name, rows in zip("qkv", weight.chunk(3), strict=True):
                setattr(layer, name, rows.data_ptr())
            for name, part in zip("qkv", [] if bias is None else bias.chunk(3), strict=bias is not None):
                setattr(layer, f"{name}_bias", part.data_ptr())
        return layer

    def _of(self, module: nn.Module, name: str) -> int | None:
        """The address of a weight, which is kept; None where the module has none."""
        weight = getattr(module, name, None)
        if weight is None:
            return None
        self._kept.append(weight)
        address: int = weight.data_ptr()
        return address


def of(model: GPT, cache: RowCache) -> NativeStep | None:
    """The step of a model whose every projection is plain and in float32; None for others, or without a compiler."""
    plain = all(
        type(module) in (nn.Linear, Linear) and not (module._forward_hooks or module._forward_pre_hooks)
        for block in model.blocks
        for name, module in block.named_modules()
        if name.rpartition(".")[2] in ("qkv", "q", "k", "v", "out", "gate", "up", "down")
    )
    weights = [*model.blocks.parameters(), *model.final_norm.parameters()]
    weights += [] if model.head is None else list(model.head.parameters())
    exact = all(one.dtype == torch.float32 and one.is_contiguous() and one.device.type == "cpu" for one in weights)
    if not plain or type(model.head) is not nn.Linear or not exact or cache.dtype != torch.float32:
        return None
    code = library()
    return None if code is None else NativeStep(code, model, cache)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled code; None without a C++ compiler, without the source, or where the code cannot be kept."""
    source = Path(__file__).parent / "cpu" / _SOURCE
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return None
    try:
        key = hashlib.sha256(source.read_bytes() + " ".join([compiler, *_OPTIONS]).encode()).hexdigest()[:16]
        built = CODE / ".tohum/compiled" / processor() / f"decode-{key}.so"
        if not built.exists():
            built.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
                part = Path(scratch, "decode.so")
                command = [compiler, *_OPTIONS, str(source), "-o", str(part)]
                subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
                part.replace(built)  # whole or not at all, when several processes compile it
        code = ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError):
        return None
    code.scratch.argtypes, code.scratch.restype = [_POINTER, _WHOLE, _WHOLE], _WHOLE
    code.step.argtypes, code.step.restype = [_POINTER, _WHOLE, *[_POINTER] * 6], None
    return code
