"""One step of decoding on a CPU for rows of different lengths: `GPT.hidden` and `GPT.logits` with little dispatch.

At one token a row the products of a small model take less time than calling its modules. Here a model is a flat list of
weights: projections that share an input are fused into one matmul, positions come from a table, and no mask is made.

A row's numbers do not depend on the rows beside it. Norms and products treat each token separately, and the result of
a product is the same for every number of tokens from four on, so fewer are padded to four
(`tests/model/test_decoding.py`); attention of a row is over exactly its keys (row_attention.py).

Shapes: N tokens of all rows, B rows, T new tokens of a row, S past and new ones, H query heads, G key-value heads, R
query heads per key-value head (H = G R), K head_dim, D d_model, V vocabulary, L layers, C capacity of a slot.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import UserError
from pipeline.model.cache import RowCache
from pipeline.model.cpu.linear import Linear
from pipeline.model.gpt import GPT, Attention, Block, FusedAttention, GatedMLP, RotaryAttention
from pipeline.model.rotary import position_tables
from pipeline.model.row_attention import Piece, PieceAttention, TokenAttention

_LEAST_ROWS = 4  # a product with fewer rows uses other kernels, whose sums differ in their last bits
_LARGEST_FUSED = 2**20  # weights; a larger product takes longer than the dispatch that fusing saves, and is not copied
_TABLE = 256  # positions by which the table of rotations grows
Function = Callable[[Tensor], Tensor]


class CompiledStep(Protocol):
    """The step of rows of one new token each, as native.py has it."""

    def __call__(
        self, x_BD: Tensor, rope: tuple[Tensor, Tensor] | None, rows: Sequence[tuple[int, int, int]]
    ) -> Tensor:
        """Logits [B, V] before a soft cap; keys and values go into the cache."""


Compile = Callable[[GPT, RowCache], CompiledStep | None]
"""The compiled step of a model and its cache; None where there is none."""


class _Layer(NamedTuple):
    norm1: Function
    qkv: Function
    """[N, D] -> [N, (H + 2 G) K]: queries, keys and values."""
    norm_heads: Function | None
    """Of queries and keys together, [N, H + G, K]."""
    out: Function
    norm2: Function
    mlp: Function


class FlatModel:
    """The weights of a GPT as a flat list of functions, and the cache of its rows.

    Small weights are copied when it is made: make a new one after an update of the model. It computes in the precision
    in which it is called (autocast), and must be made in the same.
    """

    @torch.no_grad()
    def __init__(self, model: GPT, compile_step: Compile | None = None) -> None:
        """Packs a model in evaluation mode, adapters included.

        Args:
            model: on the CPU.
            compile_step: for steps of one token a row, `native.of`; its logits differ from torch's by rounding, so no
                stage of the graph gives one.

        Raises:
            UserError: a model without a language head.
        """
        if model.head is None:
            raise UserError("this model is a classifier without a language head; start from a language model instead")
        self.config, self._model = model.config, model
        device = model.embed.weight.device
        lower = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if lower else torch.float32
        self.cache = RowCache(model.config, dtype, device)
        self._layers = [_layer(block) for block in model.blocks]
        self._rotates_first = model.config.family == "nanochat"
        self._embed_norm = None if model.embed_norm is None else _norm(model.embed_norm)
        self._final_norm, self._head = _norm(model.final_norm), _product(model.head)
        self._rope: tuple[Tensor, Tensor] | None = None
        self._native = None if compile_step is None else compile_step(model, self.cache)

    @property
    def is_compiled(self) -> bool:
        """Whether compiled code computes steps of one token a row."""
        return self._native is not None

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> Tensor:
        """Writes keys and values of the pieces' tokens into the cache; logits after the last of each, [B, V]."""
        if self._native is None:
            return self._step(pieces)
        single = [len(piece.ids) == 1 for piece in pieces]
        if all(single):
            return self._native_step(self._native, pieces)
        prompts = self._step([piece for piece, one in zip(pieces, single, strict=True) if not one])
        if not any(single):
            return prompts
        newest = self._native_step(self._native, [piece for piece, one in zip(pieces, single, strict=True) if one])
        logits_BV = torch.empty(len(pieces), prompts.shape[1])
        mask_B = torch.tensor(single)
        logits_BV[mask_B], logits_BV[~mask_B] = newest, prompts
        return logits_BV

    def _native_step(self, step: CompiledStep, pieces: Sequence[Piece]) -> Tensor:
        """The same for pieces of one token, by compiled code."""
        positions = [piece.past for piece in pieces]
        ids_N, positions_N = torch.tensor([[piece.ids[0] for piece in pieces], positions]).unbind(0)
        window = self.config.sliding_window
        firsts = [0] * len(pieces) if window is None else [max(0, past + 1 - window) for past in positions]
        rows = [(piece.slot, piece.past, first) for piece, first in zip(pieces, firsts, strict=True)]
        logits_BV = step(self._embedded(ids_N, positions_N), self._rotations(positions_N), rows)
        cap = self.config.logit_softcap
        return logits_BV if cap is None else cap * torch.tanh(logits_BV / cap)

    def _step(self, pieces: Sequence[Piece]) -> Tensor:
        """`step` with torch's kernels."""
        ids_N, positions_N, places_N, last_B = self._indices(pieces)
        count = len(places_N)
        attend: PieceAttention | TokenAttention
        attend = (TokenAttention if last_B is None else PieceAttention)(self.config, self.cache, pieces)
        rope = self._rotations(positions_N)
        x_ND = self._embedded(ids_N, positions_N)
        for number, layer in enumerate(self._layers):
            q_NHK, k_NGK, v_NGK = self._projected(layer, layer.norm1(x_ND), rope)
            self.cache.write(number, places_N, k_NGK[:count], v_NGK[:count])
            if last_B is not None and number == len(self._layers) - 1:  # only the last token of each piece is needed
                x_ND, q_NHK = x_ND[last_B], q_NHK[last_B]
                attend = TokenAttention(self.config, self.cache, pieces)
            x_ND = x_ND + layer.out(attend(number, q_NHK))
            x_ND = x_ND + layer.mlp(layer.norm2(x_ND))
        logits_BV = self._head(self._final_norm(x_ND))[: len(pieces)]
        cap = self.config.logit_softcap
        return logits_BV if cap is None else cap * torch.tanh(logits_BV / cap)

    def _indices(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Ids and positions [N, padded], places in the cache [N], and the last token of each piece [B, padded].

        The last is None where every piece is one token.
        """
        ids: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        last: list[int] = []
        for slot, past, new in pieces:
            ids += new
            positions += range(past, past + len(new))
            place = slot * self.cache.capacity + past
            places += range(place, place + len(new))
            last.append(len(ids) - 1)
        padding = [0] * _missing(len(ids))
        table = torch.tensor([ids + padding, positions + padding, places + padding])
        ids_N, positions_N, places_N = table.unbind(0)
        wanted = None if len(last) == len(ids) else torch.tensor(last + [0] * _missing(len(last)))
        return ids_N, positions_N, places_N[: len(places)], wanted

    def _embedded(self, ids_N: Tensor, positions_N: Tensor) -> Tensor:
        x_ND: Tensor = self._model.embed(ids_N)
        if self._model.positions is not None:
            x_ND = x_ND + self._model.positions(positions_N)
        return x_ND if self._embed_norm is None else self._embed_norm(x_ND)

    def _rotations(self, positions_N: Tensor) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines [N, 1, K]; None with learned positions."""
        if self._model.positions is not None:
            return None
        if self._rope is None or len(self._rope[0]) < self.cache.capacity:
            rows = min(-(-self.cache.capacity // _TABLE) * _TABLE, self.config.context_length)
            self._rope = position_tables(torch.arange(rows), self.config)
        cos, sin = self._rope
        return cos.index_select(0, positions_N), sin.index_select(0, positions_N)

    def _projected(
        self, layer: _Layer, h_ND: Tensor, rope: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, K], keys and values [N, G, K]."""
        H, G = self.config.n_heads, self.config.n_kv_heads
        heads = layer.qkv(h_ND).view(len(h_ND), H + 2 * G, self.config.head_dim)
        if rope is None:
            q, k, v = heads.split((H, G, G), 1)  # type: ignore[no-untyped-call]  # torch's method
            return q, k, v
        qk, v = heads.split((H + G, G), 1)  # type: ignore[no-untyped-call]
        if layer.norm_heads is None:
            qk = _rotated(qk, *rope)
        elif self._rotates_first:
            qk = layer.norm_heads(_rotated(qk, *rope))
        else:
            qk = _rotated(layer.norm_heads(qk), *rope)
        return qk[:, :H], qk[:, H:], v


def _missing(rows: int) -> int:
    """Rows of padding, up to a multiple of the least number of rows."""
    return -rows % _LEAST_ROWS


def _layer(block: nn.Module) -> _Layer:
    assert isinstance(block, Block)
    attention, norm_heads = block.attention, None
    if isinstance(attention, FusedAttention):
        qkv = _product(attention.qkv)
    else:
        assert isinstance(attention, RotaryAttention)
        qkv = _product(attention.q, attention.k, attention.v)
        norm_heads = _norm_of_heads(attention)
    if isinstance(block.mlp, GatedMLP):
        mlp = partial(_gated, both=_product(block.mlp.gate, block.mlp.up), down=_product(block.mlp.down))
    else:
        act = _gelu if block.mlp.has_gelu else _squared_relu
        mlp = partial(_plain, up=_product(block.mlp.up), act=act, down=_product(block.mlp.down))
    return _Layer(_norm(block.norm1), qkv, norm_heads, _product(attention.out), _norm(block.norm2), mlp)


def _product(*modules: nn.Module) -> Function:
    """Their outputs side by side, [N, ...]: one matmul where all are plain projections, and small."""
    plain = [module for module in modules if isinstance(module, nn.Linear) and _is_plain(module)]
    if len(plain) < len(modules):
        return modules[0] if len(modules) == 1 else partial(_beside, parts=modules)
    if len(plain) > 1 and sum(module.weight.numel() for module in plain) > _LARGEST_FUSED:
        return partial(_beside, parts=[_product(module) for module in plain])
    weights, biases = ([getattr(module, name) for module in plain] for name in ("weight", "bias"))
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    bias = biases[0] if len(biases) == 1 or biases[0] is None else torch.cat(biases)
    return partial(F.linear, weight=weight.detach(), bias=None if bias is None else bias.detach())


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a projection and nothing more: no adapter, no quantised weight, no hook."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return type(module) in (nn.Linear, Linear) and not hooks


def _beside(x: Tensor, parts: Sequence[Function]) -> Tensor:
    return torch.cat([part(x) for part in parts], dim=-1)


def _gated(x: Tensor, both: Function, down: Function) -> Tensor:
    gate, up = both(x).chunk(2, dim=-1)
    return down(F.silu(gate) * up)


def _plain(x: Tensor, up: Function, act: Function, down: Function) -> Tensor:
    return down(act(up(x)))


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _squared_relu(x: Tensor) -> Tensor:
    return F.relu(x).square()


def _norm(module: nn.Module) -> Function:
    """A norm as a function, without the call of a module."""
    if isinstance(module, nn.LayerNorm):
        return partial(
            F.layer_norm, normalized_shape=module.normalized_shape, weight=module.weight, bias=module.bias,
            eps=module.eps,
        )  # fmt: skip
    assert isinstance(module, nn.RMSNorm)
    assert module.eps is not None
    return partial(_rms, weight=module.weight, epsilon=module.eps)


def _norm_of_heads(attention: Attention) -> Function | None:
    """The norms of queries and keys as one function of both, [N, H + G, K]; None where there are none."""
    q, k = attention.q_norm, attention.k_norm
    if not isinstance(q, nn.RMSNorm) or not isinstance(k, nn.RMSNorm):
        return None
    assert q.eps is not None
    if q.weight is None:
        return partial(_rms, weight=None, epsilon=q.eps)
    H, G = attention.n_heads, attention.n_kv_heads
    weight_XK = torch.cat((q.weight.expand(H, -1), k.weight.expand(G, -1)))
    return partial(_rms, weight=weight_XK.detach(), epsilon=q.eps)


def _rms(x: Tensor, weight: Tensor | None, epsilon: float) -> Tensor:
    """RMSNorm of the last dimension, as cpu/norm.py has it, in float32 and back."""
    exact = x.float()
    y = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True).add_(epsilon))
    return (y if weight is None else y * weight).to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotary.rotate` without a gradient."""
    a, b = x.chunk(2, dim=-1)
    halves = torch.cat((b, a), dim=-1)
    if x.dtype == sin.dtype:
        return halves.mul_(sin).addcmul_(x, cos)
    return (halves * sin).addcmul_(x, cos).to(x.dtype)
