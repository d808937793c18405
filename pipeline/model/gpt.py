"""The network: GPT-2, Llama, Qwen3, Arcee and NanoChat, one readable file, architecture and nothing else.

Offers `ModelConfig`, `GPT` and the KV `Cache`.
Sources: GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023; RoPE Su et al. 2021, SwiGLU Shazeer 2020,
grouped queries Ainslie et al. 2023), Qwen3 (2025: per-head RMSNorm of queries and keys), Arcee (2025: Llama with ReLU
squared, So et al. 2021), NanoChat (2025: ReLU squared, norms without a scale, capped logits). The parts correspond one
to one to those of the transformers library, so weights and adapters map by name (see checkpoint.py); numbers agree to
1e-5.

Shapes are in the names: B batch, T new tokens, S past + new tokens, P prefix, D d_model, H query heads,
G key-value heads, K head_dim, F d_ff, V vocab_size, C classes.

Randomness: weights come from an explicit generator. Dropout draws from torch's global generator (torch offers
no other); whoever trains with dropout seeds that generator before every step.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.recipe import HEADLESS, Model
from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.model.adapters import Virtual
from pipeline.model.cache import Cache, KeyValue, Past, Prefix, Recorder
from pipeline.model.cpu import explicit
from pipeline.model.cpu.activations import gelu, swiglu
from pipeline.model.cpu.linear import Linear, together
from pipeline.model.cpu.norm import RMSNorm
from pipeline.model.document_mask import attend_blocks, packed
from pipeline.model.rotary import rotate, tables
from pipeline.model.varlen import Places, Rows, unpadded

_UNBIASED = ("qwen3", "nanochat")


class RopeScaling(Section):
    """Llama 3's stretching of the slow rotations ("llama3" in config.json). Source: Llama 3.1, 2024."""

    rope_type: Literal["llama3"]
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


class ModelConfig(Model):
    """The shape of a network: `pretrain.model` of params.yaml, the vocabulary, what open weights ask for."""

    vocab_size: Positive
    mlp_bias: bool | None = None
    """Biases in the MLP; null: as `bias` (those of Qwen3 and NanoChat never have any)."""
    rope_scaling: RopeScaling | None = None

    @model_validator(mode="after")
    def _rotates(self) -> Self:
        if self.family != "gpt2" and self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even number")
        if self.family in _UNBIASED and self.mlp_bias:
            raise ValueError(f"family {self.family} has no biases in its MLP; set mlp_bias to null")
        return self

    @property
    def biased_mlp(self) -> bool:
        """Whether the MLP has biases."""
        return (self.bias and self.family not in _UNBIASED) if self.mlp_bias is None else self.mlp_bias


class Output(NamedTuple):
    """What `forward` returns when more than logits is asked for."""

    logits_BTV: Tensor  # noqa: N815
    hidden: dict[int, Tensor]
    """Layer number -> [B, T, D]: 0 the embeddings, n what block n puts out, n_layers after the final norm."""
    attentions: dict[int, Tensor]
    """Block number from 0 -> [B, H, T, S] attention weights."""


class Shown:
    """Which layers' inner values a caller wants to see, and what was seen."""

    def __init__(self, hidden: Collection[int] = (), attentions: Collection[int] = ()) -> None:
        self.wanted_hidden, self.wanted_attentions = frozenset(hidden), frozenset(attentions)
        self.hidden: dict[int, Tensor] = {}
        self.attentions: dict[int, Tensor] = {}


class Context(NamedTuple):
    """What every block of one forward pass shares."""

    mask: Tensor | None
    is_causal: bool
    """Every token sees itself and all before it; then a mask says nothing else."""
    keys: Rows | None = None
    """Where the tokens stand when the stream is a list of them, [N, D]; none: it is [B, T, D]."""
    queries: Rows | None = None
    """Where those stand that ask: all tokens, in the last block only the wanted ones."""
    asking: Places | None = None
    """Which of the tokens those are; none: all."""
    blocks: Any = None
    """Who may look where, as FlexAttention reads it; then there is no mask."""
    rope: tuple[Tensor, Tensor] | None = None
    past: Past | None = None
    shown: Shown | None = None

    def asked(self, x: Tensor) -> Tensor:
        """The tokens of a stream that ask, [N, ...] -> [M, ...]; all of them in most blocks."""
        return x if self.asking is None else self.asking.gather(x)


class View(NamedTuple):
    """Where the tokens of one forward pass stand, and who sees whom."""

    positions: Tensor
    """[B or 1, T], or [N] when the stream is a list of tokens."""
    context: Context
    last: Context
    """Of the last block."""
    taken: Rows | None = None
    """Which of the batch's tokens are in that list; none: all."""

    @property
    def listed(self) -> bool:
        """Whether the stream is a list of tokens."""
        return self.positions.dim() == 1


def rope_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians per position of each rotated pair of features, [K / 2], as transformers computes them."""
    steps = torch.arange(0, config.head_dim, 2, device=device).float() / config.head_dim
    plain = 1.0 / (config.rope_theta**steps)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    length = scaling.original_max_position_embeddings
    turns = length * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    # Slow rotations (below `low` turns in the original context) are stretched, fast ones kept, between them
    # blended.
    share = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * share + plain / scaling.factor * (1 - share)


class Attention(nn.Module):
    """Causal multi-head attention, with its weights shown when a caller wants this layer's."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim

    def heads(self, x: Tensor, n_heads: int) -> Tensor:
        """[B, T, n_heads * K] -> [B, n_heads, T, K], or [N, n_heads * K] -> [N, n_heads, K]."""
        return x.unflatten(-1, (n_heads, self.head_dim)).transpose(1, -2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """softmax(q k / sqrt(K)) v over past and new tokens; what `heads` gives -> [..., H * K]."""
        (q_BHTK,) = [q] if context.queries is None else context.queries.heads(q)
        k_BGSK, v_BGSK = [k, v] if context.keys is None else context.keys.heads(k, v)
        if context.past is not None:
            k_BGSK, v_BGSK = context.past.extend(self.layer, k_BGSK, v_BGSK)
        dropout = self.dropout if self.training else 0.0
        shown = context.shown if context.shown and self.layer in context.shown.wanted_attentions else None
        if shown is None and context.blocks is None and explicit.suits(q_BHTK, k_BGSK, v_BGSK, dropout):
            out_BHTK = explicit.attend(q_BHTK, k_BGSK, v_BGSK, context.mask, context.is_causal)
        else:
            if self.n_kv_heads != self.n_heads:
                # Each group of query heads shares one key-value head.
                repeats = self.n_heads // self.n_kv_heads
                k_BGSK, v_BGSK = k_BGSK.repeat_interleave(repeats, 1), v_BGSK.repeat_interleave(repeats, 1)
            if shown is not None:
                out_BHTK, shown.attentions[self.layer] = self._slow(q_BHTK, k_BGSK, v_BGSK, context, dropout)
            elif context.blocks is not None:
                out_BHTK = attend_blocks(q_BHTK, k_BGSK, v_BGSK, context.blocks)
            else:
                out_BHTK = F.scaled_dot_product_attention(
                    q_BHTK, k_BGSK, v_BGSK, None if context.is_causal else context.mask, dropout, context.is_causal
                )
        out_BTX = out_BHTK.transpose(1, 2).flatten(2)
        return out_BTX if context.queries is None else context.queries.gather(out_BTX.flatten(0, 1))

    def _slow(self, q: Tensor, k: Tensor, v: Tensor, context: Context, dropout: float) -> tuple[Tensor, Tensor]:
        """The same sum, spelled out because the weights are wanted too: ([B, H, T, K], [B, H, T, S])."""
        scores_BHTS = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        mask = context.mask
        if context.is_causal:
            mask = causal_mask(q.shape[2], k.shape[2], q.device)
        if mask is not None:
            scores_BHTS = scores_BHTS.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores_BHTS + mask
        weights_BHTS = scores_BHTS.softmax(-1)
        return F.dropout(weights_BHTS, dropout) @ v, weights_BHTS


class FusedAttention(Attention):
    """GPT-2: one projection makes queries, keys and values."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.qkv = Linear(config.d_model, 3 * config.d_model, bias=config.bias)
        self.out = Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[..., D] -> [..., D]."""
        q, k, v = (self.heads(part, self.n_heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(self.attend(context.asked(q), k, v, context))


class RotaryAttention(Attention):
    """All but GPT-2: rotary positions, key-value heads shared by query heads; Qwen3 and NanoChat norm q and k."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        d_model, d_query, d_key = (
            config.d_model,
            config.n_heads * config.head_dim,
            config.n_kv_heads * config.head_dim,
        )
        self.q = Linear(d_model, d_query, bias=config.bias)
        self.k = Linear(d_model, d_key, bias=config.bias)
        self.v = Linear(d_model, d_key, bias=config.bias)
        self.out = Linear(d_query, d_model, bias=config.bias)
        normed = config.family in ("qwen3", "nanochat")
        self.q_norm = norm(config, config.head_dim) if normed else nn.Identity()
        self.k_norm = norm(config, config.head_dim) if normed else nn.Identity()
        self.turned_first = config.family == "nanochat"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[..., D] -> [..., D]."""
        assert context.rope is not None
        if context.asking is None:
            q, k, v = together(x, self.q, self.k, self.v)
        else:
            q, k, v = self.q(context.asked(x)), self.k(x), self.v(x)
        q, k, v = self.heads(q, self.n_heads), self.heads(k, self.n_kv_heads), self.heads(v, self.n_kv_heads)
        asked = [context.asked(part) for part in context.rope]
        if self.turned_first:  # the same up to rounding, and what transformers does
            q, k = self.q_norm(rotate(q, *asked)), self.k_norm(rotate(k, *context.rope))
        else:
            q, k = rotate(self.q_norm(q), *asked), rotate(self.k_norm(k), *context.rope)
        return self.out(self.attend(q, k, v, context))


class GeluMLP(nn.Module):
    """GPT-2: up, GELU in its tanh form, down."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.down = Linear(config.d_ff, config.d_model, bias=config.biased_mlp)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.down(gelu(self.up(x_BTD)))


class GatedMLP(nn.Module):
    """Llama and Qwen3: SwiGLU, silu(gate) * up, down."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.up = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.down = Linear(config.d_ff, config.d_model, bias=config.biased_mlp)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.down(swiglu(*together(x_BTD, self.gate, self.up)))


class SquaredMLP(nn.Module):
    """Arcee and NanoChat: up, ReLU squared (So et al. 2021, section 4), down."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.down = Linear(config.d_ff, config.d_model, bias=config.biased_mlp)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.down(F.relu(self.up(x_BTD)).square())


_MLPS = {"gpt2": GeluMLP, "llama": GatedMLP, "qwen3": GatedMLP, "arcee": SquaredMLP, "nanochat": SquaredMLP}


def norm(config: ModelConfig, width: int) -> nn.Module:
    """LayerNorm for GPT-2, RMSNorm for the others, without a scale for NanoChat."""
    if config.family == "gpt2":
        return nn.LayerNorm(width, eps=config.norm_epsilon, bias=config.bias)
    return RMSNorm(width, eps=config.norm_epsilon, elementwise_affine=config.family != "nanochat")


class Block(nn.Module):
    """Attention and MLP, each on a normed copy of the stream and added back to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        fused = config.family == "gpt2"
        self.norm1 = norm(config, config.d_model)
        self.attention = FusedAttention(config, layer) if fused else RotaryAttention(config, layer)
        self.norm2 = norm(config, config.d_model)
        self.mlp = _MLPS[config.family](config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[B, T, D] -> [B, T, D], or [N, D] -> [N, D], the last block to the wanted tokens alone."""
        x = context.asked(x) + dropped(self.attention(self.norm1(x), context), self.dropout, self.training)
        return x + dropped(self.mlp(self.norm2(x)), self.dropout, self.training)


def dropped(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout that costs nothing where there is none, not even the call of a module."""
    return F.dropout(x, p) if p and training else x


def padded_product(x: Tensor, weight_VD: Tensor, multiple: int = 128) -> Tensor:
    """x W^T, [..., D] -> [..., V], computed with rows of zeros up to a multiple: tensor cores want round numbers, and
    GPT-2's 50,257 is odd. No checkpoint sees the padding."""
    V = weight_VD.shape[0]
    return F.linear(x, F.pad(weight_VD, (0, 0, 0, -V % multiple)))[..., :V]


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding that draws nothing when it is made: drawing on the meta device imports torch's compiler, 2 s."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """[T, S], true where one of the T newest tokens may look: itself and all before it."""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(diagonal=S - T)


class GPT(nn.Module):
    """A decoder-only language model, with an optional classification head `score`.

    `head` shares its weight with `embed` when the embeddings are tied. It is None in a classifier that was
    loaded from a folder without a language head.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None, zero_projections: bool = False) -> None:
        """Builds the network and draws its weights.

        Args:
            config: the shape.
            generator: source of the weights, on the device they shall be on. None leaves the network on
                torch's meta device, shapes without storage, for counting parameters or for
                `load_state_dict(assign=True)`.
            zero_projections: what attention and MLP add to the stream begins at zero.
        """
        super().__init__()
        self.config, self.dropout = config, config.dropout
        self.fixed = False
        """Blocks, or the steps of generation, are compiled: shapes should not change from batch to batch."""
        self.score: nn.Linear | None = None
        self.virtual: Virtual | None = None
        """Trained virtual tokens before every text."""
        self._shown: Shown | None = None
        with torch.device("meta"):
            self.embed = _table(config.vocab_size, config.d_model)
            learned = config.family == "gpt2"
            self.positions = _table(config.context_length, config.d_model) if learned else None
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
            self.embed_norm = norm(config, config.d_model) if config.family == "nanochat" else None
            self.final_norm = norm(config, config.d_model)
            self.head: nn.Linear | None = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if generator is not None:
            self.to_empty(device=generator.device)
        self.tie()
        if generator is not None:
            self._initialise(generator, zero_projections)

    def tie(self) -> None:
        """Makes `head` share the weight of `embed` where the config says so."""
        if self.config.tie_embeddings and self.head is not None:
            self.head.weight = self.embed.weight

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator, zero_projections: bool) -> None:
        """GPT-2's rule: normal(0, 0.02), biases 0, norms 1; what the stream receives: / sqrt(2 n_layers).

        An embedding that is not also the head starts at normal(0, 1), torch's own rule: beside what trained blocks add,
        a token of 0.02 drowns in the stream, and a model that cannot see its tokens learns late to copy them.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                deviation = 0.02 / math.sqrt(2 * self.config.n_layers) if residual else 0.02
                deviation *= not (residual and zero_projections)
                if name == "embed.weight" and not self.config.tie_embeddings:
                    deviation = 1.0
                parameter.normal_(0.0, deviation, generator=generator)

    def add_score(self, n_labels: int, generator: torch.Generator) -> None:
        """Adds (or replaces) the classification head: [C, D], no bias, normal(0, 0.02).

        Raises:
            UserError: a family of which transformers has no classifier.
        """
        if self.config.family in HEADLESS:
            raise UserError(
                f"a {self.config.family} model has no classification head in transformers, nobody could read it; take "
                "objective cloze, or start from another family"
            )
        device = self.embed.weight.device
        weight = torch.empty(n_labels, self.config.d_model, device=generator.device).normal_(
            0.0, 0.02, generator=generator
        )
        with torch.device("meta"):
            self.score = nn.Linear(self.config.d_model, n_labels, bias=False)
        self.score.weight = nn.Parameter(weight.to(device))

    def num_parameters(self, trainable: bool = False) -> int:
        """How many numbers the network has (tied ones once), or only those that training may move."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def forward(
        self,
        ids_BT: Tensor | None = None,
        *,
        embeddings_BTD: Tensor | None = None,
        mask: Tensor | None = None,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        prefix: Sequence[KeyValue] | None = None,
        cache: Cache | None = None,
        hidden: Collection[int] | None = None,
        attentions: Collection[int] | None = None,
    ) -> Tensor | Output:
        """Logits for every new token.

        Args:
            ids_BT: token ids, int64; or none and `embeddings_BTD` instead of their rows of `embed`.
            mask: none: causal. Boolean [B, T] or [B, S]: causal, and false keys (padding) are not seen; every
                token still sees itself, so rows of padding stay finite. [B, 1 or H, T, S]: the whole rule,
                causality included, boolean (true: may look) or added to the scores.
            positions_BT: [B or 1, T]; none: counted on from prefix and cache.
            segments_BT: documents packed into one row, a number per token that differs between neighbours: each sees
                itself alone, with positions from its start; instead of mask and positions, without a cache.
            prefix: keys and values before the first token, one pair per layer. With a cache: into the empty
                cache.
            cache: read and extended in place; not for training.
            hidden, attentions: layers to show, numbered as in `Output`; others cost nothing.

        Returns:
            logits [B, T, V], or `Output` when hidden states or attentions are asked for.

        Raises:
            ValueError: shapes that do not fit, or more tokens than the context has positions for.
        """
        shown = None if hidden is None and attentions is None else Shown(hidden or (), attentions or ())
        x_BTD = self.hidden(
            ids_BT,
            embeddings_BTD=embeddings_BTD,
            mask=mask,
            positions_BT=positions_BT,
            segments_BT=segments_BT,
            prefix=prefix,
            cache=cache,
            shown=shown,
        )
        logits_BTV = self.logits(x_BTD)
        return logits_BTV if shown is None else Output(logits_BTV, shown.hidden, shown.attentions)

    def hidden(
        self,
        ids_BT: Tensor | None = None,
        *,
        embeddings_BTD: Tensor | None = None,
        mask: Tensor | None = None,
        positions_BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        prefix: Sequence[KeyValue] | None = None,
        cache: Cache | Recorder | None = None,
        shown: Shown | None = None,
        wanted_BT: Tensor | None = None,
    ) -> Tensor:
        """The stream after the final norm, [B, T, D], at no cost of logits; arguments as in `forward`.

        With `wanted_BT` (boolean) only those positions, [N, D] in their order; without a mask or a cache neither
        padding on the right nor anything else that no wanted position sees is computed.
        """
        if (ids_BT is None) == (embeddings_BTD is None):
            raise ValueError("give either ids_BT or embeddings_BTD")
        shown = shown or self._shown
        given = ids_BT if embeddings_BTD is None else embeddings_BTD
        assert given is not None
        B, T = given.shape[:2]
        past, start = self._past(self._before(prefix, cache), cache, B)
        view = self._view(B, T, start, mask, positions_BT, segments_BT, wanted_BT, cache is not None, shown)
        if view.listed:
            given = given.flatten(0, 1) if view.taken is None else view.taken.gather(given.flatten(0, 1))
        x = self.embed(given) if embeddings_BTD is None else given
        rope = None
        if self.positions is not None:
            x = x + self.positions(view.positions)
        else:
            rope = self._rope(view.positions)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        x = dropped(x, self.dropout, self.training)
        context, last = (one._replace(rope=rope, past=past, shown=shown) for one in (view.context, view.last))
        for layer, block in enumerate(self.blocks):
            if shown is not None and layer in shown.wanted_hidden:
                shown.hidden[layer] = x
            x = block(x, context if layer < self.config.n_layers - 1 else last)
        x = self.final_norm(x)
        if shown is not None and self.config.n_layers in shown.wanted_hidden:
            shown.hidden[self.config.n_layers] = x
        if cache is not None:
            cache.advance(T)
        if view.taken is not None:  # only the wanted ones are left
            return x
        x = x.unflatten(0, (B, T)) if view.listed else x
        return x if wanted_BT is None else x[wanted_BT]

    def _view(
        self,
        B: int,
        T: int,
        start: int,
        mask: Tensor | None,
        positions_BT: Tensor | None,
        segments_BT: Tensor | None,
        wanted_BT: Tensor | None,
        cached: bool,
        shown: Shown | None,
    ) -> View:
        """Where B rows of T tokens stand behind `start` positions, and who sees whom; arguments as in `forward`."""
        if start + T > self.config.context_length and positions_BT is None and segments_BT is None:
            raise ValueError(f"{start + T} tokens do not fit in a context of {self.config.context_length}")
        if segments_BT is not None:
            if mask is not None or positions_BT is not None or cached:
                raise ValueError("segments_BT stands for mask and positions, and goes with no cache")
            return self._packed(segments_BT, start, shown)
        device = self.embed.weight.device
        if positions_BT is None:
            positions_BT = torch.arange(start, start + T, device=device)[None]
        context = Context(*self._rule(mask, T, start, device))
        if context.is_causal and self.fixed and explicit.trains(T, device):
            context = context._replace(mask=explicit.causal(T, device))
        at = None if wanted_BT is None or mask is not None or cached or shown is not None else unpadded(wanted_BT)
        if at is None:
            return View(positions_BT, context, context)
        positions_N = at.tokens.gather(positions_BT.expand(B, T).flatten())
        seen = F.pad(at.mask, (start, 0), value=True)
        last = Context(seen, False, keys=at.tokens, queries=at.wanted, asking=at.asking)
        return View(positions_N, context._replace(keys=at.tokens, queries=at.tokens), last, at.tokens)

    def _packed(self, segments_BT: Tensor, start: int, shown: Shown | None) -> View:
        """As `_view`, for documents that share a row and see themselves alone."""
        fixed = self.fixed and not start  # a block mask has no place for a prefix
        dropout = self.training and self.dropout > 0
        found = packed(segments_BT, fixed, shown is not None, dropout, self.config.head_dim)
        longest = segments_BT.shape[1] if found.rows is None else found.rows.shape[1]
        context = Context(*self._rule(None, longest, start, segments_BT.device), keys=found.rows, queries=found.rows)
        if found.mask is not None:
            context = Context(F.pad(found.mask, (start, 0), value=True), False)
        elif found.blocks is not None:
            context = Context(None, False, blocks=found.blocks)
        return View(found.positions + start, context, context)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """The language head: [..., D] -> [..., V]. Raises UserError in a classifier that has none."""
        if self.head is None:
            raise UserError("this model is a classifier without a language head; start from a language model instead")
        pads = self.training and x_BTD.device.type == "cuda" and type(self.head) is nn.Linear
        logits_BTV = padded_product(x_BTD, self.head.weight) if pads else self.head(x_BTD)
        cap = self.config.logit_softcap
        return logits_BTV if cap is None else cap * torch.tanh(logits_BTV / cap)

    def classify(
        self,
        ids_BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        *,
        embeddings_BTD: Tensor | None = None,
        prefix: Sequence[KeyValue] | None = None,
    ) -> Tensor:
        """Class scores [B, C], read at each row's last real token, as <Family>ForSequenceClassification does.

        Args:
            ids_BT: token ids, or `embeddings_BTD` instead.
            mask_BT: boolean, false on padding; none: no padding.
            prefix: as in `forward`.

        Raises:
            UserError: the model has no classification head.
        """
        if self.score is None:
            raise UserError("this model has no classification head; fine-tune it with objective classify first")
        given = ids_BT if embeddings_BTD is None else embeddings_BTD
        assert given is not None
        rule = mask_BT
        if mask_BT is None or bool(mask_BT[:, 0].all()):
            rule = None  # padding on the right only: causal attention never sees it, so the fast path is exact
        index_T = torch.arange(given.shape[1], device=given.device)
        last_B = index_T[-1:] if mask_BT is None else (index_T * mask_BT).argmax(dim=1)
        wanted_BT = (index_T == last_B[:, None]).expand(given.shape[:2])
        return self.score(
            self.hidden(ids_BT, embeddings_BTD=embeddings_BTD, mask=rule, prefix=prefix, wanted_BT=wanted_BT)
        )

    @contextmanager
    def shown(self, wanted: Shown) -> Iterator[Shown]:
        """Inside, every pass leaves what is wanted in it, by whatever door it entered; the last pass stays."""
        self._shown = wanted
        try:
            yield wanted
        finally:
            self._shown = None

    def room(self, prefix: Sequence[KeyValue] | None = None) -> int:
        """Positions that are left for text behind a prefix, or behind the model's own virtual tokens."""
        virtual = 0 if self.virtual is None else self.virtual.length
        return self.config.context_length - (virtual if prefix is None else prefix[0][0].shape[2])

    def _before(self, prefix: Sequence[KeyValue] | None, cache: Cache | Recorder | None) -> Sequence[KeyValue] | None:
        """The prefix of this call: the given one, or what the virtual tokens give where text begins."""
        if prefix is not None or self.virtual is None or isinstance(cache, Recorder) or (cache and cache.length):
            return prefix
        return self.virtual.before(self)

    def _past(
        self, prefix: Sequence[KeyValue] | None, cache: Cache | Recorder | None, batch: int
    ) -> tuple[Past | None, int]:
        """What stands before the new tokens, and how many positions it takes."""
        if prefix is not None and len(prefix) != self.config.n_layers:
            raise ValueError(f"the prefix has {len(prefix)} layers, the model {self.config.n_layers}")
        if cache is None:
            return (None, 0) if prefix is None else (Prefix(prefix), prefix[0][0].shape[2])
        if prefix is not None:
            if cache.length:
                raise ValueError("a prefix goes into an empty cache; later calls read it from there")
            for layer, (k, v) in enumerate(prefix):
                cache.extend(layer, k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1))
            cache.advance(prefix[0][0].shape[2])
        return cache, cache.length

    def _rope(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every angle, each [B or 1, 1, T, K], or [N, 1, K] of [N]; float32."""
        with torch.autocast(positions_BT.device.type, enabled=False):
            angles = positions_BT[:, None, ..., None].float() * rope_frequencies(self.config, positions_BT.device)
            if self.config.family == "nanochat":
                angles = -angles  # it turns the other way
            return tables(angles)

    @staticmethod
    def _rule(mask: Tensor | None, T: int, start: int, device: torch.device) -> tuple[Tensor | None, bool]:
        """Who may look where: (mask or None, is_causal) for scaled_dot_product_attention."""
        S = start + T
        if mask is None:
            if start == 0:
                return None, True
            return (None if T == 1 else causal_mask(T, S, device)), False
        if mask.dim() == 4:
            return mask, False
        if mask.dim() != 2 or mask.shape[1] not in (T, S):
            raise ValueError(
                f"mask has shape {tuple(mask.shape)}; expected [B, {T}], [B, {S}] or [B, 1 or H, {T}, {S}]"
            )
        keys_BS = F.pad(mask.bool(), (S - mask.shape[1], 0), value=True)
        itself_TS = torch.eye(T, dtype=torch.bool, device=device)
        itself_TS = F.pad(itself_TS, (start, 0))
        return (keys_BS[:, None, None] & causal_mask(T, S, device)) | itself_TS, False
