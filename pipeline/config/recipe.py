"""Recipes: how one model is trained. An independent part per axis, its schedule, validation and privacy."""

import hashlib
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from pipeline.config import plugins
from pipeline.config.section import Count, Positive, Section, Share, validated

Kind = Literal["documents", "labelled", "instructions", "preferences"]
KINDS: tuple[Kind, ...] = get_args(Kind)
HEADLESS = frozenset({"nanochat"})
"""Families for which transformers has no classifier: nobody could read one's checkpoint."""
AXES = {
    "objective": "objectives",
    "auxiliary": "auxiliary",
    "tuner": "tuners",
    "weighting": "weighting",
    "ordering": "ordering",
    "optimizer": "optimizers",
}


def seed_for(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, derived from the params seed: equal arguments, equal seed, on every machine."""
    text = "\0".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Part(Section):
    """`{name: lora, rank: 8}`: the file that does the work and that file's own settings beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    def settings(self, folder: str, where: str) -> Any:
        """The part's settings, typed by the sibling `pipeline/<folder>/<name>.py`."""
        fields = dict(self.__pydantic_extra__ or {})
        return validated(plugins.settings_class(folder, self.name, where), fields, where)


class Compute(Section):
    """What changes the bits of every trained number: tracked, and part of each model's fingerprint."""

    device: Literal["cpu", "cuda"]
    threads: Positive
    precision: Literal["float32", "bfloat16"]
    compile: bool


class Model(Section):
    """The shape of a network that is trained from scratch. Sources: the families' model cards and transformers."""

    family: Literal["gpt2", "llama", "qwen3", "arcee", "nanochat"]
    """gpt2: LayerNorm, learned positions, GELU. The others: RMSNorm, rotary positions, and llama: SwiGLU; qwen3:
    SwiGLU, normed queries and keys; arcee: ReLU squared; nanochat: ReLU squared, normed queries and keys, norms without
    a scale, the embeddings normed too.
    """
    n_layers: Positive
    n_heads: Positive
    n_kv_heads: Positive
    head_dim: Positive
    d_model: Positive
    d_ff: Positive
    context_length: Positive
    dropout: Share
    tie_embeddings: bool
    bias: bool
    rope_theta: Annotated[float, Field(gt=0)]
    norm_epsilon: Annotated[float, Field(gt=0)]
    logit_softcap: Annotated[float, Field(gt=0)] | None
    """Largest logit, c tanh(logit / c) (Gemma 2, 2024, section 2); family nanochat alone; null: none."""

    @model_validator(mode="after")
    def _fits(self) -> "Model":
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads {self.n_kv_heads} does not divide n_heads {self.n_heads}")
        if self.family != "gpt2" and self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even number")
        if self.family == "gpt2" and (self.n_kv_heads != self.n_heads or self.head_dim * self.n_heads != self.d_model):
            raise ValueError("family gpt2 has n_kv_heads = n_heads and head_dim = d_model / n_heads")
        if self.family == "nanochat" and self.head_dim * self.n_heads != self.d_model:
            raise ValueError("family nanochat has head_dim = d_model / n_heads")
        if self.family != "nanochat" and self.logit_softcap is not None:
            raise ValueError(
                f"family {self.family} has no logit_softcap, so no reader of its checkpoints would apply it; set it to "
                "null, or family to nanochat"
            )
        return self


class Start(Section):
    """Where pretraining starts: fresh weights, or open weights of one of our families, pinned by hash."""

    kind: Literal["scratch", "folder", "hub"]
    path: str | None
    """kind folder: the folder. kind hub: the repository id."""
    revision: str | None
    """kind hub: a commit hash."""
    sha256: str | None
    """Of all files that decide the model or its text: config, weights and index, tokenizer, adapter; null is refused
    with the hash to write (pipeline/foreign.py).
    """
    licence: str | None
    zero_projections: bool
    """kind scratch: what attention and MLP add to the stream begins at zero, not at small random numbers (Zhang et al.
    2019, "Fixup")."""

    @model_validator(mode="after")
    def _draws_what_it_zeroes(self) -> "Start":
        if self.zero_projections and self.kind != "scratch":
            raise ValueError(f"zero_projections is about fresh weights, kind is {self.kind}; set it to false")
        return self


class Schedule(Section):
    """Learning rate over steps, batch accumulation and clipping."""

    shape: Literal["cosine", "linear", "trapezoid", "constant"]
    steps: Count
    """Optimizer updates."""
    warmup_steps: Count
    final_share: Share
    """Last learning rate as a share of the peak."""
    accumulate: Positive
    """Micro-batches per update."""
    batch_warmup_steps: Count
    """Updates over which their number grows evenly to `accumulate` (batch-size warm-up; McCandlish et al.
    2018: the noise of the gradient, and with it the useful batch, grows as the loss falls); 0: all from the start."""
    clip_norm: Annotated[float, Field(ge=0)]
    """Largest gradient norm; 0 clips nothing."""

    @model_validator(mode="after")
    def _has_a_batch_to_grow_to(self) -> "Schedule":
        if self.batch_warmup_steps and self.accumulate == 1:
            raise ValueError(
                f"batch_warmup_steps is {self.batch_warmup_steps} and accumulate 1: there is nothing to grow to; raise "
                "accumulate (and lower ordering.batch_size), or set it to 0"
            )
        return self


class Validation(Section):
    """Validation during training, early stopping and which weights are kept."""

    every: Positive
    batches: Positive
    patience: Count
    """Validations without a better loss before training stops; 0 never stops early."""
    keep: Literal["last", "best"]


class Privacy(Section):
    """Differential privacy for each example that a recipe learns from: pipeline/training/private.py."""

    epsilon: Annotated[float, Field(gt=0)]
    """Budget of the whole schedule; the noise follows from it."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """Probability that the budget may fail; below 1 / examples."""
    clip_norm: Annotated[float, Field(gt=0)]
    """Length that one example's gradient is cut to."""


class Recipe(Section):
    """One independent part per axis; pretraining and every fine-tune are recipes."""

    seed: int
    privacy: Privacy | None
    """null: none."""
    objective: Part
    auxiliary: Part
    tuner: Part
    weighting: Part
    ordering: Part
    optimizer: Part
    schedule: Schedule
    validation: Validation

    @model_validator(mode="after")
    def _keeps_its_privacy(self) -> "Recipe":
        needed = [
            ("ordering.name", self.ordering.name, "poisson", "the reported epsilon is that of its sampling"),
            ("schedule.accumulate", self.schedule.accumulate, 1, "raise ordering.batch_size, memory does not grow"),
            ("schedule.clip_norm", self.schedule.clip_norm, 0.0, "privacy.clip_norm clips every example instead"),
            ("few", getattr(self, "few", None), None, "which records are drawn depends on the others"),
        ]
        for key, found, wanted, why in needed:
            if self.privacy is not None and found != wanted:
                raise ValueError(f"privacy needs {key} {'null' if wanted is None else wanted}, not {found}: {why}")
        return self

    def part(self, axis: str, where: str) -> Any:
        """The typed settings of the part on one axis (`objective`, `tuner`, `weighting`, ...)."""
        return getattr(self, axis).settings(AXES[axis], f"{where}.{axis}")


class Pretrain(Recipe):
    """The recipe next_token + full, from scratch or from open weights."""

    start: Start
    model: Model


class Finetune(Recipe):
    """A recipe that starts from another model of the graph."""

    start: str = Field(alias="from")
    reference: str
    """The frozen model that an auxiliary loss compares with (a teacher); where none does, the start itself."""
    data: Kind
    depth: Positive | None
    """Start from so many of that model's blocks, evenly spaced; null: all."""
    few: Positive | None
    """Train on only so many records of each label (of all, where records have none), drawn by the seed; null: all."""


class Merge(Section):
    """One model out of two that were tuned from the same one, by arithmetic on weights."""

    of: str
    """The model that both were tuned from, directly or not."""
    first: str
    """Decides what the merged model answers with, where the two answer differently."""
    second: str
    rule: Part
