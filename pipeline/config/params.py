"""params.yaml as frozen, typed sections: the only place of settings.

Unknown keys are errors that name the path, the value and the choices. Config validates and never transforms: a stage
gets the values of the file. There are no defaults; every key is spelled out in params.yaml. The parts of a recipe
(`tuner: {name: lora, ...}`) bring their own typed fields from their own file, read without importing it.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.recipe import Compute, Finetune, Merge, Part, Pretrain
from pipeline.config.review import Review
from pipeline.config.section import Count, Positive, Section, Share
from pipeline.config.serving import Serving


class Tracking(Section):
    """Delivery of run records to MLflow."""

    enabled: bool
    """Whether runs are recorded and delivered; false keeps only reports/runs/<stage>.json."""
    uri: str
    """Tracking URI of MLflow: `sqlite:///mlflow.db`, or the address of a server."""
    experiment: str
    """Name of the MLflow experiment; it is made if there is none."""


class Runtime(Section):
    """Settings that change no byte of any out: intervals of logs and checkpoints, progress bars, tracking."""

    log_every: Positive
    """Updates between two logged steps of a training."""
    checkpoint_every: Positive
    """Updates between two saved training states."""
    checkpoint_seconds: Annotated[float, Field(gt=0)]
    """Seconds between two saved training states, at most; longer where saving would take a twentieth of the time."""
    progress: bool
    """Whether progress bars are shown."""
    tracking: Tracking
    """Delivery of run records to MLflow."""


class Source(Part):
    """A source of records: a file of pipeline/data/sources by name, its settings, and the rights to its text."""

    licence: str
    """SPDX identifier or a sentence; the raw gate rejects an empty one."""
    consent: str
    """Basis on which people's words may be used: synthetic, public-domain, licence, consent, contract..."""
    weight: Annotated[float, Field(gt=0, le=1)]
    """Share of the source's records that is kept, chosen by a stable hash of the record."""


class ChatModel(Section):
    """A chat model that a source asks while it is read: an OpenAI-compatible endpoint, or a model folder."""

    endpoint: Annotated[str, Field(pattern=r"^(https?://[^/]+.*|\$[A-Za-z_][A-Za-z0-9_]*)$")] | None
    """Address before /chat/completions, which mostly ends in /v1; $NAME: the address is secret and held by the
    environment variable NAME, and only this name is written anywhere; null: the model folder answers."""
    model: str | None
    """The endpoint's name of the model; null with a folder."""
    key: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None
    """Environment variable that holds the API key; null: none is sent."""
    folder: str | None
    """A model folder, such as models/chat-lora or one beside the project, whose task cuts prompts to its
    max_prompt_tokens; null with an endpoint."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    """SHA-256 of the folder's files (an error names the one found); null with an endpoint."""
    temperature: Annotated[float, Field(ge=0)]
    """Temperature of the sampling; 0: the likeliest token each time."""
    max_tokens: Positive
    """Longest answer in tokens."""
    seed: int
    """Seed of the sampling; another one asks anew."""
    retries: Count
    """Further requests after a failed one, with pauses of 1, 2, 4, ... seconds (at most 60) or as the server says."""
    timeout_s: Annotated[float, Field(gt=0)]
    """Seconds without a byte from the server after which a request has failed."""
    concurrency: Positive
    """Requests at once."""

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> "ChatModel":
        if (self.endpoint is None) == (self.folder is None):
            raise ValueError("name an endpoint or a folder, and set the other to null")
        if self.endpoint is not None and (self.model is None or self.sha256 is not None):
            raise ValueError("an endpoint needs the name of its model, and sha256: null")
        if self.folder is not None and (self.model is not None or self.key is not None):
            raise ValueError("a folder takes model: null and key: null")
        return self


class Augmentation(Part):
    """A kind of changed copies: a file of pipeline/data/augment by name, and its settings."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the records that get such a copy, chosen by a stable hash of the record."""


class Download(Section):
    """Settings of the stage download."""

    forget: str | None
    """A list below inputs/ of records that are left out of every source, one id a line; `tohum forget` writes it.
    null: none."""
    sources: dict[str, Source]
    """Sources by name; their records are merged in this order."""

    @field_validator("forget")
    @classmethod
    def _is_an_input(cls, value: str | None) -> str | None:
        if value is not None and (Path(value).parts[:1] != ("inputs",) or len(Path(value).parts) < 2 or ".." in value):
            raise ValueError("must lie below inputs/, where DVC sees a change, such as inputs/forget.txt")
        return value


class Split(Section):
    """Train, validation and test splits. A record that its source pins to a split stays in it."""

    by: Literal["record", "group", "time"]
    """record: by a stable hash of the content, so new data moves no old record; group: by a stable hash of column
    `group`, so that a group (a customer, a thread) is in one split; time: the latest records by column `time` are test,
    those before them validation. A record without a group or a time is split by the hash of its content."""
    seed: int
    """Seed of the hash."""
    validation: Share
    """Share of the validation split."""
    test: Share
    """Share of the test split."""

    @model_validator(mode="after")
    def _leaves_training(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation + test leave nothing to train on; their sum must be below 1")
        return self


class Tokenize(Section):
    """The tokenizer: trained on this project's documents, a named preset, or adopted from files."""

    method: Literal["train", "gpt2", "cl100k_base", "o200k_base", "ranks", "folder", "extend", "characters"]
    """`train`: byte-level BPE trained here; `characters`: a token a character; `extend`: adopted from a folder, with
    merges learned from the training split after its own; the others: adopted from files."""
    vocab_size: Positive | None
    """With `train`: number of token ids, the 256 bytes and the special tokens included; with `extend`: that of old and
    new tokens together; null otherwise."""
    pattern: Literal["gpt2", "cl100k_base", "o200k_base"] | None
    """With `train` and `ranks`: the pre-tokenizer's pattern; null otherwise."""
    path: str | None
    """With `ranks` and the presets: a tiktoken ranks file; with `folder` and `extend`: a folder that holds
    tokenizer.json."""
    sha256: str | None
    """SHA-256 of the file at `path`, or with `folder` and `extend` of all the tokenizer's files; null: not checked."""


class Deduplicate(Section):
    """Near-duplicate removal: MinHash candidates (Broder 1997), then the Jaccard similarity of word shingles."""

    near_threshold: Share
    """Jaccard similarity from which two records are near-duplicates."""
    shingle_words: Positive
    """Words a shingle."""
    permutations: Positive
    """MinHash permutations: length of a record's signature."""
    seed: int
    """Seed of the permutations."""


class Sample(Section):
    """Settings of the stage sample: deduplication and decontamination, by record kind."""

    deduplicate: Deduplicate
    """Near-duplicate removal."""
    decontaminate: bool
    """Whether training records that occur, exactly or nearly, in validation or test are removed."""


class Bound(Section):
    """Bounds of a model's metric."""

    at_least: float | None
    """Lowest value that passes; null: no lower bound."""
    at_most: float | None
    """Highest value that passes; null: no upper bound."""


class Evaluation(Section):
    """Measures of one model, and the metrics that it must reach to be registered."""

    measures: dict[str, dict[str, Any]]
    """File in pipeline/evaluation -> that file's settings."""
    thresholds: dict[str, Bound]
    """Metric -> bounds, judged by the model's gate."""


class Experiment(Section):
    """A claim about a method beside another, fixed before it runs; tested by the report."""

    claim: str
    """The claim in words, for the report."""
    method: str
    """Recipe under test, by name, or by the part of the name before -s1, -s2...: all seeds."""
    against: str | None
    """Recipe to compare with, named alike; null: none, and the margin is a bound on the metric itself (with `lower`
    on its negative)."""
    figure: str
    """A metric of the evaluation or of training, or `updates_to`: updates until a validation loss is reached."""
    target: float | None
    """With `updates_to`: that validation loss in nats; null otherwise."""
    better: Literal["higher", "lower"]
    """Whether higher or lower values of the metric are better."""
    margin: float
    """Gain that the method must exceed after two standard errors are subtracted; negative: it may be worse by less."""
    expect: bool
    """Whether the method should win; false for a null hypothesis, where there is no effect to find."""

    @model_validator(mode="after")
    def _has_a_target(self) -> "Experiment":
        if (self.figure == "updates_to") != (self.target is not None):
            raise ValueError("target goes with figure updates_to, and is null otherwise")
        return self


class Waiver(Section):
    """A dated, reviewed exception to one expectation that blocks a gate."""

    gate: str
    """Gate or model whose expectation is waived."""
    expectation: str
    """Name of the expectation, as the gate's page shows it."""
    column: str
    """Column of the expectation, as the gate's page shows it."""
    reason: str
    """Why the exception is acceptable; shown in the report and on the model card."""
    until: str
    """Last day as an ISO date; checked when a model is registered, never inside the graph."""

    @field_validator("until")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        date.fromisoformat(value)
        return value


class Register(Section):
    """Settings of the registration."""

    models: list[str]
    """Models that are registered as candidates when none is named."""
    name: str
    """Prefix of the registered models' names: `<name>-<model>`."""


class Grid(Section):
    """Carbon intensity of the electricity that the trainings use; carbon is stated only where it is given."""

    grams_per_kwh: Annotated[float, Field(ge=0)] | None
    """Grams of CO2 equivalent a kilowatt hour; null: no carbon is stated."""
    source: str | None
    """Where that number comes from, with its year: shown beside every carbon figure; null without a number."""

    @model_validator(mode="after")
    def _has_a_source(self) -> "Grid":
        if (self.grams_per_kwh is None) != (not self.source):
            raise ValueError("grams_per_kwh and source go together: give both, or null for both")
        return self


class Report(Section):
    """Settings of the pages and of the model card; a change retrains and measures nothing."""

    language: Literal["en", "tr"]
    """Language of the pages and of the model card: en or tr. The terminal and verdict.json are in English."""
    grid: Grid
    """Carbon intensity of the grid."""


class Params(Section):
    """The whole of params.yaml."""

    compute: Compute
    """Device, threads and precision."""
    runtime: Runtime
    """Logs, checkpoints, progress bars and tracking."""
    download: Download
    """Sources of records."""
    split: Split
    """Train, validation and test splits."""
    tokenize: Tokenize
    """The tokenizer."""
    sample: Sample
    """Deduplication and decontamination."""
    pretrain: Pretrain
    """The recipe of the model `base`."""
    finetune: dict[str, Finetune]
    """Recipe -> its settings; the model has the recipe's name."""
    merge: dict[str, Merge]
    """Merged model -> the models it is made of."""
    evaluations: dict[str, Evaluation]
    """Model -> its measures and thresholds; exactly base, every recipe and every merge."""
    experiments: dict[str, Experiment]
    """Claim by name; read only by the report, so a change retrains nothing."""
    report: Report
    """Language of the pages, and the grid's carbon intensity."""
    gates: dict[str, dict[str, Any]]
    """File in pipeline/gates (raw, tokens, samples, model) -> that file's thresholds."""
    waivers: list[Waiver]
    """Exceptions to expectations of the gates."""
    register_: Register = Field(alias="register")
    """Registration."""
    review: Review
    """Review of candidates."""
    serving: Serving
    """The server, `tohum serve`."""
    search: dict[str, dict[str, Any]]
    """Recipe, or base -> its hyperparameter search: trials, seed, pruner, space (pipeline/config/search_space.py)."""

    @model_validator(mode="after")
    def _one_evaluation_per_model(self) -> "Params":
        models = {"base", *self.finetune, *self.merge}
        if models != set(self.evaluations):
            missing, unknown = sorted(models - set(self.evaluations)), sorted(set(self.evaluations) - models)
            raise ValueError(
                "`evaluations` must name base, every recipe of `finetune` and every merge, no other; "
                f"missing: {missing}; unknown: {unknown}"
            )
        for name, recipe in self.finetune.items():
            for key, model in (("from", recipe.start), ("reference", recipe.reference)):
                if model not in models - {name}:
                    raise ValueError(f"finetune.{name}.{key} is {model!r}; one of: {sorted(models - {name})}")
        if unregistered := sorted(set(self.register_.models) - models):
            raise ValueError(f"register.models names {unregistered}; one of: {sorted(models)}")
        return self

    @model_validator(mode="after")
    def _start_of_a_private_recipe_has_not_seen_its_records(self) -> "Params":
        for name, recipe in self.finetune.items():
            if recipe.privacy is None:
                continue
            for model in dict.fromkeys([*self.lineage(recipe.start), *self.lineage(recipe.reference)]):
                earlier = self.pretrain if model == "base" else self.finetune.get(model)
                kind = "documents" if model == "base" else getattr(earlier, "data", None)
                if earlier is not None and earlier.schedule.trains and kind == recipe.data:
                    raise ValueError(
                        f"finetune.{name}.privacy: its `from` or `reference` is or comes from {model!r}, trained on "
                        f"the same {recipe.data} outside of this budget; name another model, or set privacy to null"
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
            self.lineage(model)
        for name, merge in self.merge.items():
            for key, model in (("first", merge.first), ("second", merge.second)):
                if merge.of not in self.lineage(model):
                    raise ValueError(f"merge.{name}.{key} is {model!r}, which was not tuned from {merge.of!r}")
        return self

    def lineage(self, model: str, descendants: tuple[str, ...] = ()) -> list[str]:
        """The model's ancestors, each after its own, and the model last. Raises ValueError for a circle."""
        if model in descendants:
            raise ValueError(f"{' from '.join([*descendants, model])}: no model can be made from itself")
        if model in self.merge:
            parents = [self.merge[model].of, self.merge[model].first, self.merge[model].second]
        else:
            parents = [self.finetune[model].start] if model in self.finetune else []
        ancestors = [name for parent in parents for name in self.lineage(parent, (*descendants, model))]
        return list(dict.fromkeys([*ancestors, model]))
