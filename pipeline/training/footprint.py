"""Memory of a training before it runs, in bytes: process, weights, gradients, optimizer state, activations, logits.

    peak = process + weights + gradients + optimizer state + best weights + activations + logits

The terms are added up although gradients and activations do not peak together: the allocator keeps freed memory
(cpu/memory.py), in pieces that do not fit each other, so that activations take `PIECES` of their bytes unless a setting
asks to save memory. Measured beside it: `python -m tests.bench.training_memory`.

Activations are what autograd keeps for the backward pass, counted term by term per token and block as Korthikanti et
al. 2022 ("Reducing activation recomputation", section 4.1) do for their network; the terms of ours are in `_SAVED`, and
tests/training/test_footprint.py counts the tensors that torch keeps. Checkpointing keeps the input of each block, and
all of one block at a time (Chen et al. 2016, section 3). Optimizer state: two moments of AdamW (Rajbhandari et al.
2020, section 3.1), one of Muon's matrices.

No torch: `tohum plan` reads this file.

Names: D d_model, F d_ff, A n_heads * head_dim, G n_kv_heads * head_dim, H n_heads, T positions of the longest row.
"""

import os
from pathlib import Path
from typing import NamedTuple

from pipeline.config.recipe import Compute, saves_memory
from pipeline.errors import UserError
from pipeline.model.config import ModelConfig

MIB = 1 << 20
PROCESS = 290 * MIB
"""Python with torch, pyarrow and a tokenizer (resident, torch 2.13 for CPUs)."""
LIBRARY = 150 * MIB
"""transformers' own imports, for architectures that it computes."""
_COMPILER = 150 * MIB  # torch's compiler, which activation checkpointing imports

# Floats of 4 bytes per token and block in float32: of D, A, G, F and H.
_SAVED = {
    # two norms keep x, the normed x and the result (6 D); attention its inputs with repeated key-value heads, its
    # result before and after the heads are joined (5 A) and the sums of its softmax (H); SwiGLU four products (4 F)
    "llama": (6, 5, 0, 4, 1),
    # and its norms of queries and keys
    "qwen3": (6, 7, 2, 4, 3),
    # ReLU squared keeps two
    "arcee": (6, 5, 0, 2, 1),
    # norms without a scale keep x and the result
    "nanochat": (4, 6, 2, 2, 3),
    # LayerNorm too
    "gpt2": (4, 5, 0, 2, 1),
}
# Bytes in bfloat16, where norms and the residual stream stay float32 and every projection keeps its own copy of x.
_SAVED_HALF = {
    "llama": (26, 4, 4, 8, 0),
    "qwen3": (26, 12, 12, 8, 8),
    "arcee": (24, 4, 4, 4, 0),
    "nanochat": (18, 18, 12, 4, 8),
    "gpt2": (7, 7, 7, 4, 1),
}
_OF_LIBRARY = (10, 0, 0, 4, 0)  # of transformers' Gemma and Phi; BERT and DistilBERT keep 2 F
_MATRIX_STATES = {"muon": 1, "lion": 1, "sgd": 1}
_STATES = 2
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.5 + 4 / 64}
PIECES = 1.6
"""Measured: 1.57 (full) and 1.60 (LoRA) on SmolLM2's shape, some 400 tokens a batch."""
_WRITTEN_OUT = 1024  # positions up to which bfloat16 on a CPU keeps attention's weights (cpu/explicit.py)


class BatchShape(NamedTuple):
    """Sizes of the largest micro-batch."""

    tokens: int
    """Tokens that are computed, padding left out."""
    predicted: int
    """Positions with logits over the vocabulary; 0 for a classifier."""
    longest: int
    """Positions of a row."""


class Counts(NamedTuple):
    """Numbers of weights."""

    total: int
    trained: int
    embedding: int
    """Of the token embeddings and an untied head, which stay in bfloat16 with NF4."""


class Beside(NamedTuple):
    """Whole models that a loss needs beside the trained one, each taken for one of its size."""

    frozen: int = 0
    """A reference, a reward model."""
    trained: int = 0
    """A value model."""
    cached: int = 0
    """Positions of the KV cache in which answers are drawn, over all rows."""


class Footprint(NamedTuple):
    """Bytes by what they hold; `total` is the peak."""

    process: float
    weights: float
    gradients: float
    optimizer: float
    best: float
    activations: float
    logits: float
    conversion: float = 0.0
    """Weights in both precisions, before the first update and after the last, where frozen ones are lowered."""

    @property
    def total(self) -> float:
        """The expected peak: of an update, or of the conversion."""
        kept = self.process + self.gradients + self.optimizer + self.best
        return max(sum(self) - self.conversion, kept + self.conversion)

    def shown(self) -> str:
        """The parts in MiB, the largest first: `activations 2,117, weights 513, ...`."""
        parts = sorted(self._asdict().items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {value / MIB:,.0f}" for name, value in parts if value >= MIB)


_NOTHING = Beside()


def footprint(  # noqa: PLR0913 - a network, how it is trained, and all that is held beside it
    config: ModelConfig,
    counts: Counts,
    optimizer: str,
    compute: Compute,
    batch: BatchShape,
    beside: Beside = _NOTHING,
) -> Footprint:
    """The expected peak of a training.

    Args:
        config: the network.
        counts: its weights.
        optimizer: name of the optimizer; muon keeps one moment of a matrix, the others two of every weight.
        compute: precision, checkpointing and the precision of frozen weights.
        batch: the largest micro-batch.
        beside: further models, and the cache of drawn answers.
    """
    library = config.family not in _SAVED and config.family not in ("mistral", "qwen2")
    frozen = counts.total - counts.trained
    held = 4.0 * counts.trained + _frozen_bytes(counts, frozen, compute.weights)
    block = saved_per_token(config, compute.precision, batch.longest) * batch.tokens
    if compute.precision == "bfloat16":  # a copy of each weight that is not bfloat16 already
        cast = counts.total - counts.embedding if compute.weights == "float32" else counts.trained
        block += 2.0 * min(cast, counts.total - counts.embedding) / config.n_layers
    stream = 4.0 * config.d_model * batch.tokens
    activations = block + stream * config.n_layers if compute.checkpoint_activations else block * config.n_layers
    pieces = 1.0 if saves_memory(compute) else PIECES
    process = PROCESS + (LIBRARY if library else 0) + (_COMPILER if compute.checkpoint_activations else 0)
    # logits, their log-softmax and the gradient of each at once, float32
    logits = 3 * 4.0 * batch.predicted * config.vocab_size + 3 * stream
    states = _MATRIX_STATES.get(optimizer, _STATES)
    trained = 4.0 * counts.trained
    conversion = 0.0 if compute.weights == "float32" else 4.0 * counts.total + held
    other = 4.0 * counts.total
    kept = pieces * activations * (1 + beside.trained)
    # 2 K G floats a position and block; answers are drawn between the updates
    kept = max(kept, 8.0 * config.n_layers * config.n_kv_heads * config.head_dim * beside.cached)
    return Footprint(
        process,
        held + other * (beside.frozen + beside.trained),
        trained + other * beside.trained,
        states * (trained + other * beside.trained),
        trained,
        kept,
        pieces * logits,
        conversion,
    )


def saved_per_token(config: ModelConfig, precision: str, longest: int) -> float:
    """Bytes that autograd keeps of one token in one block."""
    D, F, H = config.d_model, config.d_ff, config.n_heads
    sizes = (D, H * config.head_dim, config.n_kv_heads * config.head_dim, F, H)
    family = {"mistral": "llama", "qwen2": "llama"}.get(config.family, config.family)
    dropout = 5.0 * (2 * D + H * longest) if config.dropout else 0.0
    if precision == "bfloat16":
        terms = _SAVED_HALF.get(family, tuple(2 * term for term in _OF_LIBRARY))
        weights = 2.0 * H * longest if longest <= _WRITTEN_OUT else 0.0
        return sum(a * b for a, b in zip(terms, sizes, strict=True)) + weights + dropout
    return sum(4.0 * a * b for a, b in zip(_SAVED.get(family, _OF_LIBRARY), sizes, strict=True)) + dropout


def count(config: ModelConfig) -> Counts:
    """The weights of a network of ours, none trained; vectors (norms, biases) are left out."""
    attention = config.d_model * config.head_dim * 2 * (config.n_heads + config.n_kv_heads)
    gated = config.family in ("llama", "mistral", "qwen2", "qwen3")
    block = attention + (3 if gated else 2) * config.d_model * config.d_ff
    table = config.vocab_size * config.d_model
    positions = config.context_length * config.d_model if config.family == "gpt2" else 0
    embedding = table * (1 if config.tie_embeddings else 2) + positions
    return Counts(config.n_layers * block + embedding, 0, embedding)


def machine_bytes() -> int:
    """The memory of this machine, or of the container (control group) that limits it."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            most = min(most, int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or the word `max`
            continue
    return most


def refusal(where: str, expected: Footprint, available: float, compute: Compute) -> str | None:
    """The reason, in words, why a training does not fit in memory, and what to change; None where it fits."""
    if expected.total <= available:
        return None
    changes = []
    if expected.activations + expected.logits > expected.weights:
        changes.append(f"lower {where}.ordering.batch_size (and raise schedule.accumulate as much)")
    if not compute.checkpoint_activations:
        changes.append("set compute.checkpoint_activations to true")
    if expected.gradients + expected.optimizer > expected.weights:
        changes.append(f"take an adapter such as lora as {where}.tuner")
    elif compute.weights == "float32":
        changes.append("set compute.weights to bfloat16")
    changes.append("or use a larger machine")
    return (
        f"params.yaml: {where} needs about {expected.total / MIB:,.0f} MiB of memory ({expected.shown()}), and there "
        f"are {available / MIB:,.0f}; {', '.join(changes)}"
    )


def require_memory(where: str, expected: Footprint, available: float, compute: Compute) -> None:
    """Raises UserError if a training does not fit in `available` bytes."""
    if (reason := refusal(where, expected, available, compute)) is not None:
        raise UserError(reason)


def _frozen_bytes(counts: Counts, frozen: int, weights: str) -> float:
    if weights != "nf4":
        return _BYTES[weights] * frozen
    halves = min(counts.embedding, frozen)
    return _BYTES["bfloat16"] * halves + _BYTES["nf4"] * (frozen - halves)
