"""params.yaml as frozen, typed sections: the only place of settings.

Unknown keys are errors that name the path, the value and the choices. Config validates and never transforms: what a
stage sees is what the file says. No defaults hide here; every key is spelled out in params.yaml. The parts of a recipe
(`tuner: {name: lora, ...}`) bring their own typed fields from their own file, read without importing it.
"""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.recipe import Compute, Finetune, Merge, Part, Pretrain
from pipeline.config.section import Positive, Section, Share


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
    """Recipe, or base -> what a search over it varies (pipeline/config/search_space.py)."""

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
