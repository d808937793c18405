"""GPT-2, Llama, Mistral, Qwen2, Qwen3, Arcee and NanoChat in one file: the architecture only.

A decoder-only transformer maps a row of token ids to next-token logits at every position.
It keeps one vector of D numbers per token, the residual stream, and every block adds to it twice: attention brings in
information from earlier positions, the MLP works on each position separately. `GPT.hidden` is that in four lines; the
classes above it are its parts, from attention up.

    family     positions        norms                   MLP            attention
    gpt2       learned table    LayerNorm               GELU           one projection makes q, k and v
    llama      rotary           RMSNorm                 SwiGLU         query heads share key-value heads
    mistral    rotary           RMSNorm                 SwiGLU         as llama, within a sliding window
    qwen2      rotary           RMSNorm                 SwiGLU         as llama, with biases on q, k and v
    qwen3      rotary           RMSNorm                 SwiGLU         as llama, with q and k normed
    arcee      rotary           RMSNorm                 ReLU squared   as llama
    nanochat   rotary, negated  RMSNorm without scale   ReLU squared   as qwen3; embeddings normed, logits capped

Sources: GPT-2 (Radford et al. 2019), Llama (Touvron et al. 2023; RoPE Su et al. 2021, SwiGLU Shazeer 2020, grouped
queries Ainslie et al. 2023), Mistral 7B (Jiang et al. 2023), Qwen2 (2024), Qwen3 (2025), Arcee (2025; ReLU squared So
et al. 2021), NanoChat (2025). The parts correspond one to one to those of the transformers library, so weights and
adapters map by name (hf_format.py); numbers agree to 1e-5.

Beside this page: config.py (hyperparameters), layout.py (position ids and masks), varlen.py and document_mask.py
(padding-free and packed batches), attention.py (its kernels), cache.py (KV cache, prefixes), rotary.py, adapters.py
(trained additions), cpu/ (faster versions of the same formulas).

Shapes are in the names: B batch, T new tokens, S past + new tokens, D d_model, H query heads, G key-value heads, K
head_dim, F d_ff, V vocab_size, C classes; N tokens of a flat batch (layout.py), where every [B, T, ...] below is
[N, ...], and M output positions of them.

Randomness: weights come from an explicit generator. Dropout draws from torch's global generator (torch offers no
other); training seeds that before every update.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.recipe import HEADLESS
from pipeline.errors import UserError
from pipeline.model.adapters import VirtualTokens
from pipeline.model.attention import attend, attend_with_weights
from pipeline.model.cache import KeyValue, KVCache, KVRecorder, Past, past_of, starts_text
from pipeline.model.capture import Capture
from pipeline.model.config import ModelConfig
from pipeline.model.cpu.activations import gelu, swiglu
from pipeline.model.cpu.linear import Linear
from pipeline.model.cpu.norm import RMSNorm
from pipeline.model.layout import AttentionInputs, ForwardInputs, Layout, layout_of
from pipeline.model.rotary import position_tables, rotate
from pipeline.model.tensor_cores import padded_product


class Attention(nn.Module):
    """Causal multi-head attention; a family implements `project` (queries, keys and values)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        self.out: nn.Linear
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim

    def project(self, x: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, K], keys and values [B, G, T, K], with positions in them where they are rotary."""
        raise NotImplementedError

    def heads(self, x: Tensor, n_heads: int) -> Tensor:
        """[B, T, n_heads * K] -> [B, n_heads, T, K]; of a flat batch [N, n_heads * K] -> [N, n_heads, K]."""
        x = x.view(*x.shape[:-1], n_heads, self.head_dim)
        return x.transpose(1, -2)  # of a flat batch dimensions 1 and -2 are the same: nothing moves

    def forward(self, x: Tensor, inputs: AttentionInputs) -> Tensor:
        """[B, T, D] -> [B, T, D]: softmax(q k^T / sqrt(K)) v over past and new tokens, its heads joined by `out`."""
        q, k, v = inputs.in_rows(*self.project(x, inputs))
        if inputs.past is not None:
            k, v = inputs.past.extend(self.layer, k, v)
        dropout, capture = self.dropout if self.training else 0.0, inputs.capture
        if capture is not None and self.layer in capture.attention_layers:
            y_BHTK, capture.attentions[self.layer] = attend_with_weights(q, k, v, inputs, dropout)
        else:
            y_BHTK = attend(q, k, v, inputs, dropout)
        y: Tensor = self.out(inputs.out_of_rows(y_BHTK.transpose(1, 2).flatten(2)))
        return y


class FusedAttention(Attention):
    """GPT-2: one projection makes queries, keys and values."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.qkv = Linear(config.d_model, 3 * config.d_model, bias=config.bias)
        self.out = Linear(config.d_model, config.d_model, bias=config.bias)

    def project(self, x: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Thirds of one product; positions are in x already."""
        q, k, v = (self.heads(part, self.n_heads) for part in self.qkv(x).chunk(3, dim=-1))
        return inputs.select_queries(q), k, v  # only the last block drops positions whose output is not needed


class RotaryAttention(Attention):
    """All but GPT-2: rotary positions, key-value heads shared by query heads; Qwen3 and NanoChat norm q and k."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        d_query, d_key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q = Linear(config.d_model, d_query, bias=config.bias)
        self.k = Linear(config.d_model, d_key, bias=config.bias)
        self.v = Linear(config.d_model, d_key, bias=config.bias)
        self.out = Linear(d_query, config.d_model, bias=config.biased_output)
        normed = config.family in ("qwen3", "nanochat")
        self.q_norm = norm(config, config.head_dim) if normed else nn.Identity()
        self.k_norm = norm(config, config.head_dim) if normed else nn.Identity()
        self.rotates_first = config.family == "nanochat"

    def project(self, x: Tensor, inputs: AttentionInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Three projections; q and k rotated by the angles of their positions: q k^T depends only on the distance."""
        assert inputs.rope is not None
        q, k, v = self.q(inputs.select_queries(x)), self.k(x), self.v(x)
        q, k, v = self.heads(q, self.n_heads), self.heads(k, self.n_kv_heads), self.heads(v, self.n_kv_heads)
        q_rope = [inputs.select_queries(table) for table in inputs.rope]
        if self.rotates_first:  # a rotation changes no length: the same up to rounding, and as transformers has it
            q, k = self.q_norm(rotate(q, *q_rope)), self.k_norm(rotate(k, *inputs.rope))
        else:
            q, k = rotate(self.q_norm(q), *q_rope), rotate(self.k_norm(k), *inputs.rope)
        return q, k, v


class MLP(nn.Module):
    """GPT-2, Arcee and NanoChat: D -> F, GELU or ReLU squared (So et al. 2021, section 4), F -> D."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.down = Linear(config.d_ff, config.d_model, bias=config.biased_mlp)
        self.has_gelu = config.family == "gpt2"

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        h = self.up(x)
        y: Tensor = self.down(gelu(h) if self.has_gelu else F.relu(h).square())
        return y


class GatedMLP(nn.Module):
    """Llama, Mistral, Qwen2 and Qwen3: SwiGLU, one projection gates the features of another."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.up = Linear(config.d_model, config.d_ff, bias=config.biased_mlp)
        self.down = Linear(config.d_ff, config.d_model, bias=config.biased_mlp)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        y: Tensor = self.down(swiglu(self.gate(x), self.up(x)))
        return y


def norm(config: ModelConfig, width: int) -> nn.Module:
    """LayerNorm for GPT-2, RMSNorm for the others, without a scale for NanoChat."""
    if config.family == "gpt2":
        return nn.LayerNorm(width, eps=config.norm_epsilon, bias=config.bias)
    return RMSNorm(width, eps=config.norm_epsilon, elementwise_affine=config.family != "nanochat")


def dropped(x: Tensor, p: float, training: bool) -> Tensor:
    """Dropout that costs nothing where there is none, not even the call of a module."""
    return F.dropout(x, p) if p and training else x


class Block(nn.Module):
    """Attention and MLP, each on a normed copy of the stream and added back to it."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = norm(config, config.d_model)
        self.attention = (FusedAttention if config.family == "gpt2" else RotaryAttention)(config, layer)
        self.norm2 = norm(config, config.d_model)
        self.mlp = MLP(config) if config.family in ("gpt2", "arcee", "nanochat") else GatedMLP(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, inputs: AttentionInputs) -> Tensor:
        """[B, T, D] -> [B, T, D]; the last block of a flat batch [N, D] -> [M, D], at the wanted positions only."""
        x = inputs.select_queries(x) + dropped(self.attention(self.norm1(x), inputs), self.dropout, self.training)
        return x + dropped(self.mlp(self.norm2(x)), self.dropout, self.training)


class GPT(nn.Module):
    """A decoder-only language model, with an optional classification head `score`.

    `head` shares its weight with `embed` when the embeddings are tied. It is None in a classifier that was loaded from
    a folder without a language head.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None, zero_projections: bool = False) -> None:
        """Builds the network and draws its weights.

        Args:
            config: hyperparameters.
            generator: source of the weights, on the device where they shall be. None leaves the network on torch's meta
                device, shapes without storage, for counting parameters or for `load_state_dict(assign=True)`.
            zero_projections: the last projection of attention and MLP starts at zero, so each block as the identity.
        """
        super().__init__()
        self.config, self.dropout = config, config.dropout
        self.static_shapes = False
        """Blocks, or the steps of generation, are compiled: shapes should not change from batch to batch."""
        self.score: nn.Linear | None = None
        self.virtual: VirtualTokens | None = None
        """Trained virtual tokens before every text."""
        self.capture: Capture | None = None
        """Values to record in the next passes (`capturing`)."""
        self.shares_weights = False
        """Copies of the model have the same weights, not copies of them (`__deepcopy__`)."""
        self.checkpoints_activations = False
        """Blocks keep only their input for the gradient (memory.py)."""
        with torch.device("meta"):
            self.embed = _embedding(config.vocab_size, config.d_model)
            learned = config.family == "gpt2"
            self.positions = _embedding(config.context_length, config.d_model) if learned else None
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
            self.embed_norm = norm(config, config.d_model) if config.family == "nanochat" else None
            self.final_norm = norm(config, config.d_model)
            self.head: nn.Linear | None = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if generator is not None:
            self.to_empty(device=generator.device)
        self.tie()
        if generator is not None:
            self._initialise(generator, zero_projections)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GPT":
        """A copy; with `shares_weights` merging an adapter into it, in place, takes no memory for a second model."""
        if getattr(self, "shares_weights", False):
            memo |= {id(parameter): parameter for parameter in self.parameters()}
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def tie(self) -> None:
        """Makes `head` share the weight of `embed` if the config ties them."""
        if self.config.tie_embeddings and self.head is not None:
            self.head.weight = self.embed.weight

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator, zero_projections: bool) -> None:
        """GPT-2's rule: normal(0, 0.02), biases 0, norms 1; projections into the residual stream / sqrt(2 n_layers).

        There are 2 n_layers of these projections, so the stream's variance does not grow with depth. An embedding that
        is not also the head starts at normal(0, 1), torch's own rule: at 0.02 it is small beside what trained blocks
        add, and a model that cannot tell its tokens apart learns late to copy them.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                into_stream = name.endswith(("attention.out.weight", "mlp.down.weight"))
                deviation = 0.02 / math.sqrt(2 * self.config.n_layers) if into_stream else 0.02
                deviation *= not (into_stream and zero_projections)
                if name == "embed.weight" and not self.config.tie_embeddings:
                    deviation = 1.0
                parameter.normal_(0.0, deviation, generator=generator)

    def forward(self, ids_BT: Tensor | None = None, **inputs: Unpack[ForwardInputs]) -> Tensor:
        """Logits of the token after each new one, [B, T, V]; arguments and errors as in `hidden`."""
        return self.logits(self.hidden(ids_BT, **inputs))

    def hidden(self, ids_BT: Tensor | None = None, **inputs: Unpack[ForwardInputs]) -> Tensor:
        """Hidden states after the final norm, [B, T, D], without logits; only at `wanted_BT` if given, [N, D].

        Args:
            ids_BT: token ids, int64; or none, and `embeddings_BTD` instead.
            inputs: all optional: embeddings_BTD, mask, positions_BT, segments_BT, prefix, cache, wanted_BT
                (`ForwardInputs` in layout.py).

        Raises:
            ValueError: shapes that do not fit, or more tokens than the context has positions for.
        """
        embeddings_BTD, cache = inputs.get("embeddings_BTD"), inputs.get("cache")
        if (ids_BT is None) == (embeddings_BTD is None):
            raise ValueError("give either ids_BT or embeddings_BTD")
        tokens = ids_BT if embeddings_BTD is None else embeddings_BTD
        assert tokens is not None
        B, T = tokens.shape[:2]
        past = past_of(self._prefix(inputs), cache, B, self.config.n_layers)
        layout = layout_of(self, T, past, inputs)
        attention_inputs = self._attention_inputs(layout, past)

        x = self._embedded(layout.flatten(tokens), layout.positions)
        for layer, block in enumerate(self.blocks):
            x = self._block(block, self._recorded(layer, x), attention_inputs[layer])
        x = self._recorded(self.config.n_layers, self.final_norm(x))

        if cache is not None:
            cache.advance(T)
        return layout.select_output(x, B, T, inputs.get("wanted_BT"))

    def logits(self, x: Tensor) -> Tensor:
        """The language head: [..., D] -> [..., V]. Raises UserError in a classifier that has none."""
        if self.head is None:
            raise UserError("this model is a classifier without a language head; start from a language model instead")
        pads = self.training and x.device.type == "cuda" and type(self.head) is nn.Linear
        logits: Tensor = padded_product(x, self.head.weight) if pads else self.head(x)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

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
            embeddings_BTD: as in `hidden`.
            prefix: as in `hidden`.

        Raises:
            UserError: the model has no classification head.
        """
        if self.score is None:
            raise UserError("this model has no classification head; fine-tune it with task classify first")
        tokens = ids_BT if embeddings_BTD is None else embeddings_BTD
        assert tokens is not None
        mask = mask_BT
        if mask_BT is None or bool(mask_BT[:, 0].all()):
            mask = None  # padding only on the right: no real token attends to it, and padding can be left out
        index_T = torch.arange(tokens.shape[1], device=tokens.device)
        last_B = index_T[-1:] if mask_BT is None else (index_T * mask_BT).argmax(dim=1)
        wanted_BT = (index_T == last_B[:, None]).expand(tokens.shape[:2])
        x_BD = self.hidden(ids_BT, embeddings_BTD=embeddings_BTD, mask=mask, prefix=prefix, wanted_BT=wanted_BT)
        scores_BC: Tensor = self.score(x_BD)
        return scores_BC

    def add_score(self, n_labels: int, generator: torch.Generator) -> None:
        """Adds (or replaces) the classification head: [C, D], no bias, normal(0, 0.02).

        Raises:
            UserError: a family without a classifier in transformers.
        """
        if self.config.family in HEADLESS:
            raise UserError(
                f"a {self.config.family} model has no classification head in transformers; take "
                "task cloze, or start from another family"
            )
        device = self.embed.weight.device
        weight = torch.empty(n_labels, self.config.d_model, device=generator.device)
        weight.normal_(0.0, 0.02, generator=generator)
        with torch.device("meta"):
            self.score = nn.Linear(self.config.d_model, n_labels, bias=False)
        self.score.weight = nn.Parameter(weight.to(device))

    @contextmanager
    def capturing(self, capture: Capture) -> Iterator[Capture]:
        """Inside, every pass by any method records into `capture`; the record of the last pass is kept."""
        self.capture = capture
        try:
            yield capture
        finally:
            self.capture = None

    def room(self, prefix: Sequence[KeyValue] | None = None) -> int:
        """The number of positions left for text behind a prefix, or behind the model's own virtual tokens."""
        virtual = 0 if self.virtual is None else self.virtual.length
        return self.config.context_length - (virtual if prefix is None else prefix[0][0].shape[2])

    def num_parameters(self, trainable: bool = False) -> int:
        """The number of weights (tied ones once), or of trainable weights."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def _embedded(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids, or embeddings of tokens, -> hidden states before the first block."""
        x = tokens if tokens.is_floating_point() else self.embed(tokens)
        if self.positions is not None:
            x = x + self.positions(positions)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        return dropped(x, self.dropout, self.training)

    def _prefix(self, inputs: ForwardInputs) -> Sequence[KeyValue] | None:
        """The prefix of a pass: the caller's, or the model's virtual tokens where a text begins."""
        prefix = inputs.get("prefix")
        if prefix is None and self.virtual is not None and starts_text(inputs.get("cache")):
            return self.virtual.key_values(self)
        return prefix

    def _attention_inputs(self, layout: Layout, past: Past | None) -> list[AttentionInputs]:
        """The inputs of each block's attention."""
        rope = position_tables(layout.positions, self.config) if self.positions is None else None
        every, last = (
            inputs._replace(rope=rope, past=past, capture=self.capture) for inputs in (layout.inputs, layout.last)
        )
        return [every] * (self.config.n_layers - 1) + [last]

    def _block(self, block: nn.Module, x: Tensor, inputs: AttentionInputs) -> Tensor:
        """A block's output; in training with activation checkpointing its inner values are computed again later."""
        records = self.capture is not None or isinstance(inputs.past, KVCache | KVRecorder)
        if self.checkpoints_activations and self.training and torch.is_grad_enabled() and not records:
            from torch.utils.checkpoint import checkpoint  # imports torch's compiler when it runs

            y: Tensor = checkpoint(block, x, inputs, use_reentrant=False)
        else:
            y = block(x, inputs)
        return y

    def _recorded(self, layer: int, x: Tensor) -> Tensor:
        if self.capture is not None:
            self.capture.record_hidden(layer, x)
        return x


def _embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding without initialisation: drawing on the meta device imports torch's compiler, 1.25 s."""
    table: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)  # type: ignore[no-untyped-call]  # torch's
    return table
