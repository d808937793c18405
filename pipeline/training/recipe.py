"""From a recipe to a trained model folder: builds its parts, runs them, writes the outs.

No part knows another's name, and this file knows none of theirs: it asks `plugins` for the file of each axis.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline import closure, files, integrity
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Kind, Recipe, seed_for
from pipeline.contracts import Examples, Learner
from pipeline.data.shards import Shard, windows
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.adapters import has_additions
from pipeline.model.depth import cut
from pipeline.model.device import compiled, set_up
from pipeline.model.gpt import GPT
from pipeline.objectives import ObjectiveContext, Objective
from pipeline.paths import MODELS, SAMPLES, TRAINING
from pipeline.tokenizer import Tokenizer
from pipeline.training import state as states
from pipeline.training.loop import Parts
from pipeline.training.run import Log, Progress, Trainer

if TYPE_CHECKING:
    from pipeline.training.private import Private

WEIGHTS = "weights.parquet"
"""In a model's folder: how much each training record counted, where a weighting keeps account of it."""
Load = Callable[[torch.Generator, torch.device], GPT]
"""Gives the start model on a device; the generator draws what is fresh."""


class Tracker(Log, Protocol):
    """The part of the tracker that a recipe uses."""

    def work(self) -> AbstractContextManager[None]:
        """Times the work itself."""

    def artifact(self, path: Path) -> None:
        """Attaches a small file."""

    def model(self, folder: Path, metrics: dict[str, float]) -> None:
        """Names the model that was made."""

    def continue_in(self, state: Path) -> None:
        """Continues an interrupted run."""


class PackedWindows:
    """Documents as a sequence of windows, ready for an objective's `collate`."""

    def __init__(self, shard: Shard, context_length: int, objective: Objective) -> None:
        self._shard, self._windows, self._objective = shard, windows(shard, context_length), objective

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._objective.example({"ids": self._windows.window(i)})

    def column(self, name: str) -> list[str]:
        """What the document says in which each window begins."""
        begins = np.arange(len(self)) * self._windows.context_length
        documents = np.searchsorted(self._shard.starts, begins, side="right") - 1
        return _column(self._shard.index(), name, documents)


class Records:
    """Records tokenized once, ready for an objective's `collate`."""

    def __init__(self, table: pa.Table, objective: Objective) -> None:
        self._table = table
        self._examples = [objective.example(record) for record in table.to_pylist()]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, i: int) -> Any:
        return self._examples[i]

    def column(self, name: str) -> list[str]:
        """What each record says."""
        return _column(self._table, name, np.arange(len(self)))


class Chosen:
    """Some of the examples, in an order of their own."""

    def __init__(self, examples: Examples, rows: np.ndarray) -> None:
        self._examples, self._rows = examples, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> Any:
        return self._examples[int(self._rows[i])]


def _column(table: pa.Table, name: str, rows: np.ndarray) -> list[str]:
    if name not in table.column_names:
        raise UserError(f"params.yaml: column {name!r} is not in the records; one of: {', '.join(table.column_names)}")
    return table[name].take(pa.array(rows)).to_pylist()


@dataclass(frozen=True)
class Built:
    """A recipe's parts over its data, nothing trained yet."""

    model: GPT
    objective: Objective
    tuner: Any
    parts: Parts
    train: PackedWindows | Records
    validation: Examples
    private: "Private | None" = None

    def trainer(self, recipe: Recipe, params: Params, run: Log, name: str) -> Trainer:
        """What trains them; the model is compiled if asked."""
        compiled(self.model, params.compute)
        return Trainer(
            self.model, self.parts, self.train, self.validation, recipe.validation, params.runtime, run, name
        )


def train(
    name: str,
    where: str,
    recipe: Recipe,
    kind: Kind,
    load: Load,
    inputs: list[Path],
    params: Params,
    run: Tracker,
    tokenizer_folder: Path,
    reference: Callable[[], GPT] | None = None,
) -> None:
    """Trains one recipe and writes models/<name>, reports/training/<name>.json and .csv.

    Args:
        name: the model's name in the graph; `where`: the recipe's path in params.yaml.
        kind: the record kind it learns from.
        inputs: files and folders that decide the result, besides params and code.
        tokenizer_folder: the vocabulary that goes with the model.
        reference: gives the frozen model that an auxiliary loss compares with.

    Raises:
        UserError: an input differs from its recorded hash; whatever the parts find wrong with params or data.
    """
    with run.work():
        _require_intact(*inputs)
        integrity.require_admitted("samples", kind, SAMPLES.parent)
        built = build(where, recipe, kind, load, params, tokenizer_folder, reference)
        settings = {"recipe": recipe.model_dump(mode="json"), "compute": params.compute.model_dump()}
        code = closure.code([__name__, load.__module__], closure.recipe_parts(recipe))
        key = states.fingerprint(settings, inputs, code)
        with states.locked(key, name) as state:
            run.continue_in(state.folder)
            progress = built.trainer(recipe, params, run, name).run(state)
            summary = _summary(progress, built.model) | (built.private.spent(progress.step) if built.private else {})
            _write(name, built, recipe, tokenizer_folder, progress, summary)
            run.artifact(TRAINING / f"{name}.csv")
            run.model(MODELS / name, summary)
            state.clear()  # last: an interrupt before here costs an update at most


def build(
    where: str,
    recipe: Recipe,
    kind: Kind,
    load: Load,
    params: Params,
    tokenizer_folder: Path,
    reference: Callable[[], GPT] | None = None,
) -> Built:
    """The recipe's start model, parts and examples; the arguments are those of `train`."""
    device = set_up(params.compute)
    generator = torch.Generator().manual_seed(seed_for(recipe.seed, "weights"))
    model = load(generator, device)
    _require_intact(tokenizer_folder)
    tokenizer = Tokenizer.load(tokenizer_folder)
    objective, tuner = _learn(recipe, where, model, tokenizer, kind, generator)
    train_set = examples(objective, kind, "train", model, getattr(recipe, "few", None), recipe.seed)
    validation_set = examples(objective, kind, "validation", model)
    for split, found in (("train", train_set), ("validation", validation_set)):
        if not len(found):
            raise UserError(f"{where}: the {split} split gives no example; see data/samples/ledger.json")
    learner = Learner(model.to(device), objective, train_set, params.compute, tokenizer, reference)
    parts = _parts(recipe, where, objective, learner, tuner)
    validation = Chosen(validation_set, parts.ordering.validated(validation_set))
    private = None
    if recipe.privacy is not None:
        from pipeline.training.private import build as privately  # opacus costs 3 s

        private = privately(recipe, where, model, parts, train_set, validation)
        parts = replace(parts, gradients=private)
    return Built(model, objective, tuner, parts, train_set, validation, private)


def _require_intact(*inputs: Path) -> None:
    """Compares inputs that a stage wrote with their manifests; open weights are pinned by params instead."""
    for path in inputs:
        if path.is_relative_to(MODELS) or path.is_relative_to(SAMPLES.parent):
            integrity.require_intact(path)


def examples(
    objective: Objective, kind: Kind, split: str, model: GPT, few: int | None = None, seed: int = 0
) -> PackedWindows | Records:
    """The examples of one split: windows of documents, or every record tokenized once; `few` of each label if asked."""
    if kind == "documents":
        if few is not None:
            raise UserError("params.yaml: few is for records; set it to null for documents, which are cut into windows")
        return PackedWindows(Shard.open(SAMPLES / kind, split), model.room(), objective)
    table = _records(kind, split)
    return Records(table if few is None else _drawn(table, few, seed), objective)


def _records(kind: Kind, split: str, columns: list[str] | None = None) -> pa.Table:
    path = SAMPLES / kind / f"{split}.parquet"
    integrity.require_intact(path)
    # pq.read_table would import pandas: half a second a stage
    return pq.ParquetFile(path).read(columns=columns)


def _drawn(table: pa.Table, few: int, seed: int) -> pa.Table:
    """`few` records of each label, which ones is the seed's; in the order of the file."""
    rng = np.random.default_rng(seed_for(seed, "few"))
    labels = np.array(table["label"].to_pylist() if "label" in table.column_names else [""] * len(table), dtype=object)
    numbers = [np.flatnonzero(labels == label) for label in sorted(set(labels.tolist()))]
    chosen = [rng.choice(rows, min(few, len(rows)), replace=False) for rows in numbers]
    return table.take(pa.array(np.sort(np.concatenate(chosen)))) if chosen else table


def _learn(
    recipe: Recipe, where: str, model: GPT, tokenizer: Tokenizer, kind: Kind, generator: torch.Generator
) -> tuple[Objective, Any]:
    labels: list[str] = []
    if kind == "labelled":
        table = _records(kind, "train", ["label"])
        labels = sorted(set(table["label"].to_pylist()))
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}; start from a "
            "model of this vocabulary, or set tokenize.method to `folder` with the model's own"
        )
    context = ObjectiveContext(tokenizer, model.config.context_length, labels)
    objective = plugins.load("objectives", recipe.objective.name).build(recipe.part("objective", where), context)
    tuner = plugins.load("tuners", recipe.tuner.name).build(recipe.part("tuner", where))
    if has_additions(model):
        raise UserError(
            f"{where}.from: that model carries additions (virtual tokens or bottlenecks) that no plain weight holds; "
            "start from the model it was made from, or from one tuned by full, layers, gradual, lora or ia3"
        )
    if (depth := getattr(recipe, "depth", None)) is not None:
        cut(model, depth)
    objective.prepare(model, generator)
    tuner.apply(model, generator, tokenizer.encode)
    if (room := model.room()) < max(2, longest := objective.task.get("max_tokens", 0)):
        raise UserError(
            f"{where}.tuner: its virtual tokens leave room for {max(room, 0)} of {model.config.context_length} tokens, "
            f"objective.max_tokens is {longest or 'not set'}; use fewer virtual tokens or lower max_tokens"
        )
    return objective, tuner


def _parts(recipe: Recipe, where: str, objective: Objective, learner: Learner, tuner: Any) -> Parts:
    def built(axis: str, *more: Any) -> Any:
        name = getattr(recipe, axis).name
        return plugins.load(AXES[axis], name).build(recipe.part(axis, where), *more)

    return Parts(
        objective=objective,
        losses=built("auxiliary", learner),
        ordering=built("ordering", learner),
        weighting=built("weighting", learner),
        optimizer=built("optimizer", tuner.groups(learner.model)),
        schedule=recipe.schedule,
        compute=learner.compute,
        seed=recipe.seed,
    )


def example_weights(examples: PackedWindows | Records, memory: dict[str, Tensor]) -> pa.Table | None:
    """How much each record counted, least first: id, origin, its weight (1: as all others), how often it was seen.

    None where the weighting keeps no such memory.
    """
    if "seen" not in memory or isinstance(examples, PackedWindows):
        return None
    weight, seen = memory["weight"].numpy(), memory["seen"].numpy()
    columns = {"id": examples.column("id"), "origin": examples.column("origin"), "weight": weight, "seen": seen}
    rows = np.lexsort((weight, -seen.clip(max=1)))  # those that were never drawn come last
    return pa.table(columns).take(pa.array(rows))


def _summary(progress: Progress, model: GPT) -> dict[str, float]:
    """Deterministic figures of the run: what DVC shows as metrics."""
    total, moved = model.num_parameters(), model.num_parameters(trainable=True)
    last = progress.curve[-1]
    return {
        "steps": progress.step,
        "best_step": progress.best_step,
        "stopped_early": int(progress.stopped_early),
        "train_loss_nats": last["train_loss_nats"],
        "validation_loss_nats": last["validation_loss_nats"],
        "best_validation_loss_nats": progress.best_loss,
        "tokens": progress.tokens,
        "parameters": total,
        "trainable_parameters": moved,
        "trainable_share": moved / total,
    }


def _write(
    name: str,
    built: Built,
    recipe: Recipe,
    tokenizer_folder: Path,
    progress: Progress,
    summary: dict[str, float],
) -> None:
    """The model folder (merged, with `adapter/` where the tuner has one), the summary and the curve."""
    model, tuner, objective = built.model, built.tuner, built.objective
    weights = example_weights(built.train, built.parts.weighting.memory)
    start = getattr(recipe, "start", None)
    base = (MODELS / start).as_posix() if isinstance(start, str) else None
    checkpoint.save(
        tuner.merge(model),
        MODELS / name,
        tokenizer=tokenizer_folder,
        labels=None if model.score is None else objective.task["labels"],  # cloze learns labels without a head
        metadata=objective.task,
        adapter=(lambda folder: tuner.save_adapter(model, folder, base)) if tuner.state(model) else None,
        more=None if weights is None else lambda folder: files.write_table(folder / WEIGHTS, weights),
    )
    curve = TRAINING / f"{name}.csv"
    with files.replacing(curve) as path:
        pa.csv.write_csv(pa.Table.from_pylist(progress.curve), path)
    files.write_json(TRAINING / f"{name}.json", summary)
    integrity.write_json(TRAINING / f"{name}.hashes.json", {}, beside=[TRAINING / f"{name}.json", curve])
