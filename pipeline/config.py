"""params.yaml as frozen, typed sections: the only place of settings.

Unknown keys are errors that name the path, the value and the choices. Config validates and never transforms: what a
stage sees is what the file says. No defaults hide here; every key is spelled out in params.yaml. The parts of a recipe
(`tuner: {name: lora, ...}`) bring their own typed fields from their own file, read without importing it.
"""

import difflib
import hashlib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline import plugins

PARAMS = Path("params.yaml")
Kind = Literal["documents", "labelled", "instructions", "preferences"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
HEADLESS = frozenset({"nanochat"})
"""Families for which transformers has no classifier: nobody could read one's checkpoint."""


class UserError(ValueError):
    """Something the user can mend: names the thing, what was found, what was expected and the next step."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


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


class Tracking(Section):
    """Where the sender delivers run records to; `enabled: false` keeps them in local files only."""

    enabled: bool
    uri: str
    experiment: str


class Runtime(Section):
    """What changes no bit of any out: cadence of logs and checkpoints, progress bars, tracking."""

    log_every: Positive
    checkpoint_every: Positive
    """Updates between two saved states of a training."""
    checkpoint_seconds: Annotated[float, Field(gt=0)]
    """Seconds after which a state is saved in any case; more where saving would take a twentieth of the time."""
    progress: bool
    tracking: Tracking


class Source(Part):
    """Where text comes from: a sibling in pipeline/data/sources and what must be known about the text's rights."""

    licence: str
    """SPDX identifier or a sentence; the raw gate refuses an empty one."""
    consent: str
    """On what basis people's words may be used: synthetic, public-domain, licence, consent, contract..."""
    weight: Annotated[float, Field(gt=0, le=1)]
    """Share of this source's records that is kept, chosen by a stable hash of the record."""


class Download(Section):
    """Sources by name; their records are merged in the order written here."""

    sources: dict[str, Source]


class Split(Section):
    """Shares of documents by a stable hash of their content, so that new data moves no old document."""

    seed: int
    validation: Share
    test: Share

    @model_validator(mode="after")
    def _leaves_training(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation + test leave nothing to train on; their sum must be below 1")
        return self


class Tokenize(Section):
    """The tokenizer: trained here, a named preset, or adopted from files."""

    method: Literal["train", "gpt2", "cl100k_base", "o200k_base", "ranks", "folder", "characters"]
    vocab_size: Positive | None
    """With `train`: ids including the 256 bytes and the special tokens; null otherwise."""
    pattern: Literal["gpt2", "cl100k_base", "o200k_base"] | None
    """With `train` and `ranks`: the pre-tokenizer; null otherwise."""
    path: str | None
    """With `ranks` and the presets: a tiktoken ranks file; with `folder`: a folder that holds tokenizer.json."""
    sha256: str | None
    """Of the file at `path`, with `folder` of all the tokenizer's files in it; checked before use when given."""


class Deduplicate(Section):
    """Near-duplicate removal: MinHash candidates, then the true Jaccard similarity of word shingles."""

    near_threshold: Share
    shingle_words: Positive
    permutations: Positive
    seed: int


class Sample(Section):
    """What enters the samples and what is removed, by record kind."""

    deduplicate: Deduplicate
    decontaminate: bool
    """Remove training records that stand, exactly or nearly, in validation or test."""


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


AXES = {
    "objective": "objectives",
    "auxiliary": "auxiliary",
    "tuner": "tuners",
    "weighting": "weighting",
    "ordering": "ordering",
    "optimizer": "optimizers",
}


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


class Bound(Section):
    """A model's metric must lie within these; null leaves a side open."""

    at_least: float | None
    at_most: float | None


class Evaluation(Section):
    """What is measured on one model, and what it must reach to be registered."""

    measures: dict[str, dict[str, Any]]
    """File in pipeline/evaluation -> that file's settings."""
    thresholds: dict[str, Bound]
    """Metric name -> bound, judged by the model's gate."""


class Experiment(Section):
    """What a method must show beside another, fixed before it runs; judged by the report."""

    claim: str
    """In words, for the report."""
    method: str
    against: str | None
    """Recipes by name, or by the part of the name before -s1, -s2...; null: nothing, and the margin is a bound on
    the figure itself (with `lower` its negative)."""
    figure: str
    """A metric of the evaluation or of training, or `updates_to` a validation loss."""
    target: float | None
    """With `updates_to`: that loss in nats; null otherwise."""
    better: Literal["higher", "lower"]
    margin: float
    """The method must be better by more than this, two standard errors left out; negative: may be worse by so much."""
    expect: bool
    """Whether it shall win; false in a null world, where there is nothing for it to find."""

    @model_validator(mode="after")
    def _has_a_target(self) -> "Experiment":
        if (self.figure == "updates_to") != (self.target is not None):
            raise ValueError("target goes with figure updates_to, and is null otherwise")
        return self


class Waiver(Section):
    """A dated, reviewed exception to one blocking expectation."""

    gate: str
    expectation: str
    column: str
    reason: str
    until: str
    """ISO date; judged when a model is registered, never inside the graph."""

    @field_validator("until")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        date.fromisoformat(value)
        return value


class Register(Section):
    """What the registry receives."""

    models: list[str]
    name: str
    """Registered model name prefix: `<name>-<model>`."""


class Params(Section):
    """The whole of params.yaml."""

    compute: Compute
    runtime: Runtime
    download: Download
    split: Split
    tokenize: Tokenize
    sample: Sample
    pretrain: Pretrain
    finetune: dict[str, Finetune]
    merge: dict[str, Merge]
    evaluations: dict[str, Evaluation]
    experiments: dict[str, Experiment]
    gates: dict[str, dict[str, Any]]
    """File in pipeline/gates (raw, tokens, samples, model) -> that file's thresholds."""
    waivers: list[Waiver]
    register_: Register = Field(alias="register")
    search: dict[str, dict[str, Any]]
    """Recipe, or base -> what a search over it varies (pipeline/space.py)."""

    @model_validator(mode="after")
    def _one_evaluation_per_model(self) -> "Params":
        models = {"base", *self.finetune, *self.merge}
        if models != set(self.evaluations):
            odd = sorted(models ^ set(self.evaluations))
            raise ValueError(
                f"`evaluations` must name base, every recipe of `finetune` and every merge, no other; differs in: {odd}"
            )
        for name, recipe in self.finetune.items():
            for key, model in (("from", recipe.start), ("reference", recipe.reference)):
                if model not in models - {name}:
                    raise ValueError(f"finetune.{name}.{key} is {model!r}; one of: {sorted(models - {name})}")
        if missing := sorted(set(self.register_.models) - models):
            raise ValueError(f"register.models names {missing}; one of: {sorted(models)}")
        return self

    @model_validator(mode="after")
    def _private_recipes_know_nothing_of_their_records(self) -> "Params":
        for name, recipe in self.finetune.items():
            if recipe.privacy is None:
                continue
            for model in dict.fromkeys([*self.line(recipe.start), *self.line(recipe.reference)]):
                taught = self.pretrain if model == "base" else self.finetune.get(model)
                kind = "documents" if model == "base" else getattr(taught, "data", None)
                if taught is not None and taught.schedule.steps and kind == recipe.data:
                    raise ValueError(
                        f"finetune.{name}.privacy: it starts from or listens to {model!r}, which has learned from the "
                        f"{recipe.data} outside of this budget; name a model that has not, or set privacy to null"
                    )
        return self

    @model_validator(mode="after")
    def _merges_fit(self) -> "Params":
        models = {"base", *self.finetune, *self.merge}
        for name, merge in self.merge.items():
            parts = {"of": merge.of, "first": merge.first, "second": merge.second}
            if name in {"base", *self.finetune}:
                raise ValueError(f"merge.{name}: another model has that name; choose one of its own")
            for key, model in parts.items():
                if model not in models - {name}:
                    raise ValueError(f"merge.{name}.{key} is {model!r}; one of: {sorted(models - {name})}")
            if len(set(parts.values())) < len(parts):
                raise ValueError(f"merge.{name} names a model twice: {parts}; a merge needs three different ones")
        for model in sorted(models):
            self.line(model)
        for name, merge in self.merge.items():
            for key, model in (("first", merge.first), ("second", merge.second)):
                if merge.of not in self.line(model):
                    raise ValueError(f"merge.{name}.{key} is {model!r}, which was not tuned from {merge.of!r}")
        return self

    def line(self, model: str, later: tuple[str, ...] = ()) -> list[str]:
        """The models that lead to one, each after those it was made from, itself last. A circle is a ValueError."""
        if model in later:
            raise ValueError(f"{' from '.join([*later, model])}: no model can be made from itself")
        if model in self.merge:
            before = [self.merge[model].of, self.merge[model].first, self.merge[model].second]
        else:
            before = [self.finetune[model].start] if model in self.finetune else []
        found = [one for start in before for one in self.line(start, (*later, model))]
        return list(dict.fromkeys([*found, model]))


def choice(what: str, arguments: list[str], choices: list[str]) -> str:
    """The one command-line argument that must be among `choices`. Raises UserError with the choices."""
    if len(arguments) != 1 or arguments[0] not in choices:
        found = " ".join(arguments) or "nothing"
        raise UserError(f"which {what}? found {found!r}; one of: {', '.join(choices)}")
    return arguments[0]


def load(path: Path = PARAMS) -> Params:
    """Reads and checks a params file, the parts' own settings included.

    Raises:
        UserError: unreadable file, unknown key, wrong type, unknown part, a recipe or merge that names no model.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the project's root, or pass its path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    return check(raw, path.name)


def check(raw: Any, name: str = "params.yaml") -> Params:
    """Checks parsed YAML as `load` does; `name` is how errors call the file."""
    from pipeline import space

    params = validated(Params, raw, "", name)
    for source, entry in params.download.sources.items():
        entry.settings("data/sources", f"download.sources.{source}")
    recipes: dict[str, Recipe] = {"pretrain": params.pretrain}
    recipes |= {f"finetune.{key}": value for key, value in params.finetune.items()}
    for where, recipe in recipes.items():
        parts = {axis: recipe.part(axis, where) for axis in AXES}
        family = params.pretrain.model.family if params.pretrain.start.kind == "scratch" else None
        if getattr(parts["objective"], "scores", False) and family in HEADLESS:
            raise UserError(
                f"{name}: {where}.objective.name is {recipe.objective.name!r}, which adds a classification head, and "
                f"pretrain.model.family is {family!r}, of which transformers has no classifier; take objective cloze, "
                "or another family"
            )
    for name, merge in params.merge.items():
        merge.rule.settings("merging", f"merge.{name}.rule")
    for model, evaluation in params.evaluations.items():
        for measure, fields in evaluation.measures.items():
            where = f"evaluations.{model}.measures.{measure}"
            validated(plugins.settings_class("evaluation", measure, where), fields, where)
    for gate, fields in params.gates.items():
        validated(plugins.settings_class("gates", gate, f"gates.{gate}"), fields, f"gates.{gate}")
    space.check(params)
    return params


def validated(cls: type, fields: Any, where: str, name: str = "params.yaml") -> Any:
    """The section `cls` of these fields; `where` is their path in the file. Raises UserError, a line per problem."""
    try:
        return cls.model_validate(fields)  # type: ignore[attr-defined]
    except ValidationError as error:
        lines = [_explain(cls, problem, where, name) for problem in error.errors()]
        raise UserError("\n".join(lines)) from None


def _explain(cls: type, problem: Any, where: str, name: str) -> str:
    path = ".".join(str(step) for step in ([where] if where else []) + list(problem["loc"]))
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(cls, problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), fields, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"{name}: {path} is not a known key, found {problem['input']!r}{hint}; one of: {', '.join(fields)}"
    if problem["type"] == "missing":
        return f"{name}: {path} is missing; every setting is spelled out"
    place = f"{name}: {path}: " if path else f"{name}: "
    found = problem["input"]
    shown = "" if isinstance(found, dict | BaseModel) else f", found {found!r}"
    return f"{place}{problem['msg'].removeprefix('Value error, ')}{shown}"


def _fields_at(cls: type, loc: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `loc` below `cls` offers, as params.yaml spells them."""
    current: Any = cls
    for step in loc:
        fields = getattr(current, "model_fields", None)
        if fields is None:
            continue  # a key of a dict: its value type was already entered
        field = next((f for key, f in fields.items() if step in (key, f.alias)), None)
        if field is None:
            break
        current = next((a for a in (field.annotation, *get_args(field.annotation)) if hasattr(a, "model_fields")), None)
    fields = getattr(current, "model_fields", {})
    return sorted(f.alias or key for key, f in fields.items())
