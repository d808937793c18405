"""Recipes: how one model is trained. An independent part per axis, a schedule, validation and privacy."""

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from pipeline.config import plugins
from pipeline.config.section import Count, Positive, Section, Share, validated
from pipeline.errors import UserError

Kind = Literal["documents", "labelled", "instructions", "preferences", "ratings"]
ALL_KINDS: tuple[Kind, ...] = get_args(Kind)
KINDS: tuple[Kind, ...] = ("documents", "labelled", "instructions", "preferences")
"""Kinds that every data/raw and data/samples has, maybe with no record. Ratings are there only where a source gives
some: `integrity.kinds_in` names the kinds of a folder."""
HEADLESS = frozenset({"nanochat"})
"""Families for which transformers has no sequence classifier, so no other program could read its checkpoint."""
FIXED_BIAS = {"qwen2": True, "mistral": False}
"""Families whose biases are part of the architecture, not a setting of config.json."""
AXES = {
    "task": "tasks",
    "experience": "experience",
    "loss": "losses",
    "judge": "judges",
    "tuner": "tuners",
    "weighting": "weighting",
    "ordering": "ordering",
    "optimizer": "optimizers",
}


class Part(Section):
    """`{name: lora, rank: 8}`: the name of the implementing file, and its own settings beside the name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str
    """Name of the file."""

    def settings(self, folder: str, where: str) -> Any:
        """The part's settings, typed by the sibling `pipeline/<folder>/<name>.py`."""
        fields = dict(self.__pydantic_extra__ or {})
        return validated(plugins.settings_class(folder, self.name, where), fields, where)


class Compute(Section):
    """Settings that change the bits of every trained weight: part of each model's fingerprint."""

    device: Literal["cpu", "cuda"]
    """Device of training and evaluation."""
    threads: Positive
    """Threads of PyTorch; their number changes the order of sums."""
    precision: Literal["float32", "bfloat16"]
    """Precision of activations (autocast); weights and optimizer states are float32."""
    compile: bool
    """Whether models are compiled (torch.compile)."""
    checkpoint_activations: bool
    """Whether training keeps only the input of each block and computes the rest again in the backward pass (Chen et al.
    2016): a third more time, the same bits, and of the activations about one block's instead of all."""
    weights: Literal["float32", "bfloat16", "nf4"]
    """Precision in which training holds frozen weights (QLoRA, Dettmers et al. 2023, for nf4: 4 bits, by the extra
    `nf4`); trained weights are float32. A model with its adapter merged in has the rounded weights that it was trained
    with; so has an adapter without its base (`merged: false`) when this project reads it, while peft adds the adapter
    to the exact weights."""


def saves_memory(compute: Compute) -> bool:
    """Whether training shall take less memory, at the cost of time."""
    return compute.checkpoint_activations or compute.weights != "float32"


class Model(Section):
    """Architecture of a model trained from scratch. Sources: the families' model cards and transformers."""

    family: Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "arcee", "nanochat"]
    """gpt2: LayerNorm, learned positions, GELU. The others: RMSNorm, rotary positions, and llama and mistral: SwiGLU;
    qwen2: SwiGLU, biases of queries, keys and values; qwen3: SwiGLU, normed queries and keys; arcee: ReLU squared;
    nanochat: ReLU squared, normed queries and keys, norms without a scale, the embeddings normed too.
    """
    n_layers: Positive
    """Transformer blocks."""
    n_heads: Positive
    """Query heads a block."""
    n_kv_heads: Positive
    """Key-value heads a block; fewer than n_heads: grouped-query attention (Ainslie et al. 2023)."""
    head_dim: Positive
    """Dimensions of a head."""
    d_model: Positive
    """Dimensions of the hidden states."""
    d_ff: Positive
    """Dimensions inside the MLP."""
    context_length: Positive
    """Tokens of a training window, and the longest input."""
    dropout: Share
    """Dropout probability while training."""
    tie_embeddings: bool
    """Whether the output head shares the weights of the token embeddings."""
    bias: bool
    """Whether layers have a bias: in gpt2 all linear layers and LayerNorms, in llama and arcee those of attention and
    MLP, in qwen3 and nanochat those of attention; in qwen2 always those of queries, keys and values (true), in mistral
    none (false); the language head never has one."""
    rope_theta: Annotated[float, Field(gt=0)]
    """Base of the rotary position embeddings' wavelengths (Su et al. 2021); unused by gpt2."""
    norm_epsilon: Annotated[float, Field(gt=0)]
    """Epsilon of the norms."""
    logit_softcap: Annotated[float, Field(gt=0)] | None
    """Bound c of the logits, c tanh(logit / c) (Gemma 2, 2024, section 2); only family nanochat; null: none."""

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
        if (fixed := FIXED_BIAS.get(self.family, self.bias)) != self.bias:
            has = "always has biases of its queries, keys and values" if fixed else "has no biases"
            raise ValueError(f"family {self.family} {has}; set bias to {str(fixed).lower()}")
        if self.family != "nanochat" and self.logit_softcap is not None:
            raise ValueError(
                f"family {self.family} has no logit_softcap, so no reader of its checkpoints would apply it; set it to "
                "null, or family to nanochat"
            )
        return self


class InitialWeights(Section):
    """Initial weights of pretraining: random, or open weights of a supported family, pinned by hash."""

    kind: Literal["scratch", "folder", "hub"]
    """scratch: random weights; folder: a model folder; hub: a repository of the Hugging Face Hub."""
    path: str | None
    """kind folder: the folder; kind hub: the repository id; null otherwise."""
    revision: str | None
    """kind hub: a commit hash; null otherwise."""
    sha256: str | None
    """SHA-256 of all files that decide the model or its text: config, weights and index, tokenizer, adapter; for open
    weights null is an error that names the hash to write (pipeline/foreign.py).
    """
    licence: str | None
    """Licence of the open weights; null otherwise."""
    zero_projections: bool
    """kind scratch: the output projections of attention and MLP start at zero, not at small random numbers (Zhang et
    al. 2019, "Fixup")."""

    @model_validator(mode="after")
    def _draws_what_it_zeroes(self) -> "InitialWeights":
        if self.zero_projections and self.kind != "scratch":
            raise ValueError(f"zero_projections is about fresh weights, kind is {self.kind}; set it to false")
        return self


class Schedule(Section):
    """Learning-rate schedule, gradient accumulation and clipping."""

    shape: Literal["cosine", "linear", "trapezoid", "constant"]
    """Shape of the learning rate after its warm-up."""
    steps: Count | None = None
    """Optimizer updates; 0 keeps the initial weights. Either `steps` or `epochs`."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training examples; as many updates as they take are counted when training starts."""
    warmup_steps: Count
    """Updates of linear warm-up."""
    final_share: Share
    """Final learning rate as a share of the peak."""
    accumulate: Positive
    """Micro-batches an update (gradient accumulation)."""
    batch_warmup_steps: Count
    """Updates over which their number grows evenly to `accumulate` (batch-size warm-up; McCandlish et al.
    2018: the noise of the gradient, and with it the useful batch, grows as the loss falls); 0: all from the start."""
    clip_norm: Annotated[float, Field(ge=0)]
    """Largest gradient norm; 0: no clipping."""

    @property
    def trains(self) -> bool:
        """Whether there is any update."""
        return self.steps != 0

    @property
    def updates(self) -> int:
        """Optimizer updates. Raises UserError for epochs, whose updates are known once the examples are."""
        if self.steps is None:
            raise UserError(
                f"schedule.epochs is {self.epochs:g}, and the number of updates is needed before the examples are "
                "read; write schedule.steps instead"
            )
        return self.steps

    @model_validator(mode="after")
    def _has_one_length(self) -> "Schedule":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"steps is {self.steps} and epochs {self.epochs}; expected one of them: steps: 120, or epochs: 3"
            )
        return self

    @model_validator(mode="after")
    def _has_a_batch_to_grow_to(self) -> "Schedule":
        if self.batch_warmup_steps and self.accumulate == 1:
            raise ValueError(
                f"batch_warmup_steps is {self.batch_warmup_steps} and accumulate 1: there is nothing to grow to; raise "
                "accumulate (and lower ordering.batch_size), or set it to 0"
            )
        return self


class KeptBy(Section):
    """The weights with the best value of a measure on the validation batches; the loss decides between equal ones."""

    measure: Literal["accuracy", "f1", "exact_match", "rmse", "mae"]
    """A measure of the recipe's task (pipeline/training/validation.py)."""


class Validation(Section):
    """Validation during training, early stopping, and the choice of weights."""

    every: Positive
    """Updates between two validations."""
    batches: Positive
    """Batches of a validation."""
    patience: Count
    """Validations without a better loss (or measure) before training stops; 0: no early stopping."""
    keep: Literal["last", "best"] | KeptBy
    """Weights that are kept: the last; the best (lowest validation loss); or, as `{measure: accuracy}`, those with the
    best value of a measure of the task. Early stopping and `tohum search` follow the same."""


class Privacy(Section):
    """Differential privacy of each training example, by DP-SGD (Abadi et al. 2016; pipeline/training/private.py)."""

    epsilon: Annotated[float, Field(gt=0)]
    """Privacy budget of the whole schedule; the noise follows from it."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """Probability with which the guarantee may fail; below 1 / examples."""
    clip_norm: Annotated[float, Field(gt=0)]
    """Largest gradient norm of one example."""


class Recipe(Section):
    """A recipe of pretraining or fine-tuning: one independent part per axis."""

    seed: int
    """Seed of initial weights, dropout, the order of examples and all other random draws of the training."""
    privacy: Privacy | None
    """Differential privacy; null: none."""
    task: Part
    """What the model is asked and answers: a file of pipeline/tasks."""
    experience: Part = Part(name="records")
    """Source of the examples, records of the data or rollouts: a file of pipeline/experience."""
    loss: Part
    """Loss that is minimised: a file of pipeline/losses."""
    tuner: Part
    """Choice of trained weights, adapters included: a file of pipeline/tuners."""
    weighting: Part
    """Example weights: a file of pipeline/weighting."""
    ordering: Part
    """Sampler, the order of examples, and the batch size: a file of pipeline/ordering."""
    optimizer: Part
    """Optimizer: a file of pipeline/optimizers."""
    schedule: Schedule
    """Learning-rate schedule, gradient accumulation and clipping."""
    validation: Validation
    """Validation, early stopping and the choice of weights."""
    states: Annotated[int, Field(ge=0, le=8)] = 2
    """Training states kept in models/<name>.states, evenly spaced over the schedule, from which `tohum verify VERSION
    --replay` trains a stretch anew; each has about 4 times the bytes of the trained weights. 0: none, for large models.
    """

    @model_validator(mode="before")
    @classmethod
    def _names_renamed_keys(cls, value: Any) -> Any:
        for old, new, meaning in (
            ("objective", "task", "what the model is asked and answers"),
            ("auxiliary", "loss", "what is minimised; `none` is now cross_entropy"),
        ):
            if isinstance(value, dict) and old in value and new not in value:
                raise ValueError(f"the key `{old}` is now `{new}` ({meaning}); rename it")
        return value

    @model_validator(mode="after")
    def _keeps_its_privacy(self) -> "Recipe":
        needed = [
            ("ordering.name", self.ordering.name, "poisson", "the reported epsilon is that of its sampling"),
            ("schedule.accumulate", self.schedule.accumulate, 1, "raise ordering.batch_size, memory does not grow"),
            ("schedule.clip_norm", self.schedule.clip_norm, 0.0, "privacy.clip_norm clips every example instead"),
            ("few", getattr(self, "few", None), None, "which records are drawn depends on the others"),
        ]
        for key, value, required, why in needed:
            if self.privacy is not None and value != required:
                raise ValueError(f"privacy needs {key} {'null' if required is None else required}, not {value}: {why}")
        return self

    def part(self, axis: str, where: str) -> Any:
        """The typed settings of the part on one axis (`task`, `tuner`, `weighting`, ...)."""
        return getattr(self, axis).settings(AXES[axis], f"{where}.{axis}")


class Pretrain(Recipe):
    """The recipe of the base model: next_token, all weights trained, from scratch or from open weights."""

    start: InitialWeights
    """Initial weights."""
    model: Model
    """Architecture; with open weights their own, and these settings are unused."""

    @property
    def judge(self) -> Part:
        """None: no answers are judged in pretraining."""
        return Part.model_validate({"name": "none", "reads": "models/base"})


class Finetune(Recipe):
    """A recipe that starts from another model of the graph."""

    start: str = Field(alias="from")
    """Model whose weights training starts from: base, another recipe or a merge."""
    reference: str
    """Frozen model that a loss compares with (a teacher); without such a loss, the same as `from`."""
    judge: Part
    """Judge of answers, for a loss that learns from its scores: a file of pipeline/judges. `reads` is a dependency of
    the stage; without such a loss `{name: none, reads: models/<the model of from>}`."""
    data: Kind
    """Record kind that is trained on."""
    depth: Positive | None
    """Number of the start model's blocks to keep, evenly spaced; null: all."""
    few: Positive | None
    """Training records of each label (or in all, where records have no label), drawn by the seed; null: all."""


class Merge(Section):
    """A merged model: two models that were tuned from the same one, combined by arithmetic on their weights."""

    of: str
    """Model that both were tuned from, directly or not."""
    first: str
    """First model; the merged model answers as this one where the two tasks differ (a label, or text)."""
    second: str
    """Second model."""
    rule: Part
    """Merge rule: a file of pipeline/merging."""
