"""Training of one recipe: builds its parts, runs them, writes the model folder, the summary and the curve.

Parts are independent of each other and of this file: `plugins` loads the file of each axis by its name.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from torch import Tensor

from pipeline import closure, files, foreign, integrity
from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Compute, Finetune, Kind, Pretrain, Recipe
from pipeline.contracts import Examples, Learner
from pipeline.errors import UserError
from pipeline.model import adapter_folder, checkpoint, memory, open_weights
from pipeline.model.adapters import has_additions
from pipeline.model.compilation import compiled
from pipeline.model.device import set_up
from pipeline.model.gpt import GPT
from pipeline.model.layers import keep_layers
from pipeline.paths import DOWNLOADS, MODELS, SAMPLES, TRAINING
from pipeline.prompts import spec as specs
from pipeline.prompts.spec import TaskSpec
from pipeline.seeds import seed_for
from pipeline.tasks import Task
from pipeline.tokenizer import Tokenizer
from pipeline.training import footprint, forecast, state_locks
from pipeline.training import state as states
from pipeline.training.examples import FewShot, PackedWindows, Records, Subset, load_examples, task_context
from pipeline.training.kept import Kept, updates_of
from pipeline.training.loop import Parts, scores_and_targets
from pipeline.training.progress import Progress
from pipeline.training.run import Log, Trainer
from pipeline.training.schedule import micro_batches, resolved

if TYPE_CHECKING:
    from pipeline.training.private import Private

WEIGHTS = "weights.parquet"
"""In a model folder: the weight of every training record, if the weighting records weights."""
Load = Callable[[torch.Generator, torch.device], GPT]
"""Loads or initialises the start model on a device; all randomness comes from the generator."""


class TrainingTracker(Log, Protocol):
    """The part of a run's tracker that training a recipe uses."""

    def work(self) -> AbstractContextManager[None]:
        """Measures the time of the work itself."""

    def artifact(self, path: Path) -> None:
        """Attaches a small file."""

    def model(self, folder: Path, metrics: dict[str, float]) -> None:
        """Logs the trained model with its metrics."""

    record: dict[str, Any]
    """Figures of the run that differ from run to run."""

    def continue_in(self, state: Path) -> None:
        """Continues the interrupted run whose state is in this folder, if there is one."""


@dataclass(frozen=True)
class Built:
    """A recipe's parts and examples, ready to train."""

    model: GPT
    task: Task
    tuner: Any
    parts: Parts
    train: PackedWindows | Records
    validation: Examples
    private: "Private | None" = None

    def require_memory(self, where: str, recipe: Recipe, compute: Compute) -> int:
        """The expected peak in MiB. Raises UserError if it is more than the machine has."""
        ordering, n = self.parts.ordering, len(self.train)
        batches = forecast.sampled(
            self.task,
            self.train,
            lambda micro: ordering.rows(n, micro, recipe.seed),
            (self.parts.schedule.steps or 0) * self.parts.schedule.accumulate,
        )
        if not batches:
            return 0
        expected = forecast.of_parts(recipe, compute, self.model, batches)
        available = footprint.machine_bytes()
        if compute.device == "cuda":
            available = torch.cuda.mem_get_info()[1]
        footprint.require_memory(where, expected, available, compute)
        return round(expected.total / footprint.MIB)

    def trainer(self, recipe: Recipe, params: Params, run: Log, name: str) -> Trainer:
        """The trainer of these parts; lowers and compiles the model as the params say."""
        if self.parts.schedule.steps:
            memory.prepare(self.model, params.compute)
        compiled(self.model, params.compute)
        return Trainer(
            self.model, self.parts, self.train, self.validation, recipe.validation, params.runtime, run, name
        )


def train(  # noqa: PLR0913 - everything that decides the result of one training stage
    name: str,
    where: str,
    recipe: Recipe,
    kind: Kind,
    load: Load,
    inputs: list[Path],
    params: Params,
    run: TrainingTracker,
    tokenizer_folder: Path,
    reference: Callable[[], GPT] | None = None,
) -> None:
    """Trains one recipe and writes models/<name>, models/<name>.states, reports/training/<name>.json and .csv.

    Args:
        name: the model's name in the graph.
        where: the recipe's path in params.yaml.
        recipe: its parts, schedule and validation.
        kind: the record kind of its examples.
        load: gives the start model.
        inputs: files and folders that decide the result, besides params and code.
        params: compute and runtime settings.
        run: the tracker.
        tokenizer_folder: the vocabulary, copied into the model folder.
        reference: loads the frozen reference model of a loss.

    Raises:
        UserError: an input differs from its recorded hash, or a part finds an error in params or data.
    """
    code = closure.code([__name__, load.__module__], closure.recipe_parts(recipe))  # before the parts are imported
    with run.work():
        _require_intact(*inputs)
        integrity.require_admitted("samples", kind, SAMPLES.parent)
        built = build(where, recipe, kind, load, params, tokenizer_folder, reference)
        settings = {"recipe": recipe.model_dump(mode="json"), "compute": params.compute.model_dump()}
        print(_trained_share(name, built.model))
        run.record["expected_memory_mib"] = built.require_memory(where, recipe, params.compute)
        key = states.fingerprint(settings, inputs, code)
        with state_locks.locked(key, name) as state:
            run.continue_in(state.folder)
            run.record["machine"] = states.machine()
            trainer, kept = built.trainer(recipe, params, run, name), Kept(state, name, _kept_updates(recipe, built))
            trainer.keeper = kept
            progress = trainer.run(state)
            summary = _write(name, built, recipe, tokenizer_folder, progress)
            kept.publish()
            run.artifact(TRAINING / f"{name}.csv")
            run.model(MODELS / name, summary)
            state.clear()  # last: an interruption before this line costs one update at most


def _kept_updates(recipe: Recipe, built: Built) -> tuple[int, ...]:
    return updates_of(recipe.states, built.parts.schedule.updates)


def build(  # noqa: PLR0913 - as `train`, without its outputs
    where: str,
    recipe: Recipe,
    kind: Kind,
    load: Load,
    params: Params,
    tokenizer_folder: Path,
    reference: Callable[[], GPT] | None = None,
) -> Built:
    """The recipe's start model, parts and examples; arguments and errors as of `train`."""
    device = set_up(params.compute)
    generator = torch.Generator().manual_seed(seed_for(recipe.seed, "weights"))
    model = load(generator, device)
    _require_intact(tokenizer_folder)
    tokenizer = Tokenizer.load(tokenizer_folder)
    require_usable(where, model, tokenizer)
    task: Task = _part(recipe, "task", where, task_context(kind, tokenizer, model.config.context_length, where))
    tuner = _part(recipe, "tuner", where)
    if (depth := getattr(recipe, "depth", None)) is not None:
        keep_layers(model, depth)
    task.prepare(model, generator)
    with _naming(where):
        tuner.apply(model, generator, tokenizer.encode)
    _require_trainable(where, recipe.tuner.name, model)
    _require_room(where, model, task)
    few = getattr(recipe, "few", None)
    form = getattr(recipe.part("task", where), "form", None)
    few_shot = None if few is None else FewShot(few, recipe.seed, form)
    train_set = load_examples(task, kind, "train", model.room(), few_shot)
    validation_set = load_examples(task, kind, "validation", model.room())
    for split, examples in (("train", train_set), ("validation", validation_set)):
        left_out = getattr(examples, "left_out", {})
        shown = ", ".join(f"{reason} {count:,}" for reason, count in sorted(left_out.items()))
        if not len(examples):
            why = f"every record is left out: {shown}; see reports/gates/samples" if shown else "it has no record"
            raise UserError(f"{where}: the {split} split gives no example: {why}")
        if shown:
            print(f"{where}: {split} records left out: {shown}")
    learner = Learner(model.to(device), task, train_set, params.compute, tokenizer, reference)
    parts = _parts(recipe, where, task, learner, tuner)
    validation = Subset(validation_set, parts.ordering.validation_rows(validation_set))
    private = None
    if recipe.privacy is not None:
        from pipeline.training.private import build as build_private  # importing opacus takes 3 s

        private = build_private(recipe, where, model, parts, train_set, validation)
        parts = replace(parts, gradients=private)
    return Built(model, task, tuner, parts, train_set, validation, private)


def _require_intact(*inputs: Path) -> None:
    """Compares inputs that a stage wrote with their manifests; open weights are pinned by params instead."""
    for path in inputs:
        if path.is_relative_to(MODELS) or path.is_relative_to(SAMPLES.parent):
            integrity.require_intact(path)


def require_usable(where: str, model: GPT, tokenizer: Tokenizer) -> None:
    """Raises UserError if a recipe cannot start from this model with this tokenizer."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}; start from a "
            "model of this vocabulary, or set tokenize.method to `folder` with the model's own"
        )
    if has_additions(model):
        raise UserError(
            f"{where}.from: that model has virtual tokens or bottleneck adapters, which are not part of its weights; "
            "start from the model it was made from, or from one trained by a tuner that changes the weights "
            "themselves or merges into them"
        )


def _require_trainable(where: str, tuner: str, model: GPT) -> None:
    """Raises UserError if the tuner left no weight to train."""
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(
            f"params.yaml: {where}.tuner.name is {tuner!r}, which trains no weight of this {model.config.family} "
            "model; choose another tuner or other settings of it"
        )


def _trained_share(name: str, model: GPT) -> str:
    """The number of weights that are trained, for the log: a tuner that trains the classification head alone shows."""
    total, trained = model.num_parameters(), model.num_parameters(trainable=True)
    return f"{name}: trains {trained:,} of {total:,} weights ({trained / total:.2%})"


def _require_room(where: str, model: GPT, task: Task) -> None:
    """Raises UserError if virtual tokens leave too little of the context for the task's examples."""
    longest = task.spec.max_tokens or 0
    if (room := model.room()) < max(2, longest):
        raise UserError(
            f"{where}.tuner: its virtual tokens leave room for {max(room, 0)} of {model.config.context_length} tokens, "
            f"task.max_tokens is {longest or 'not set'}; use fewer virtual tokens or lower max_tokens"
        )


def _part(recipe: Recipe, axis: str, where: str, *inputs: Any) -> Any:
    """Builds the recipe's part on one axis: the file it names, with its settings."""
    name = getattr(recipe, axis).name
    with _naming(where):
        return plugins.load(AXES[axis], name).build(recipe.part(axis, where), *inputs)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Adds the recipe to an error of a part, which knows its own settings only."""
    try:
        yield
    except UserError as error:
        text = str(error)
        if where in text or not text.startswith("params.yaml: "):
            raise
        raise UserError(text.replace("params.yaml: ", f"params.yaml: {where}.", 1)) from error


def _parts(recipe: Recipe, where: str, task: Task, learner: Learner, tuner: Any) -> Parts:
    ordering = _part(recipe, "ordering", where, learner)
    return Parts(
        task=task,
        losses=_part(recipe, "loss", where, learner).losses,
        ordering=ordering,
        weighting=_part(recipe, "weighting", where, learner),
        optimizer=_part(recipe, "optimizer", where, tuner.groups(learner.model)),
        schedule=resolved(recipe.schedule, len(learner.examples), ordering.batch_size),
        compute=learner.compute,
        seed=recipe.seed,
    )


def example_weights(examples: PackedWindows | Records, memory: dict[str, Tensor]) -> pa.Table | None:
    """Weights of the training records, lowest first: id, origin, weight (1: average), number of times drawn.

    None if the weighting records no weights.
    """
    if "seen" not in memory or isinstance(examples, PackedWindows):
        return None
    weight, seen = memory["weight"].numpy(), memory["seen"].numpy()
    columns = {"id": examples.column("id"), "origin": examples.column("origin"), "weight": weight, "seen": seen}
    rows = np.lexsort((weight, -seen.clip(max=1)))  # records that were never drawn come last
    return pa.table(columns).take(pa.array(rows))


def _summary(progress: Progress, built: Built) -> dict[str, float]:
    """Deterministic figures of the run, for `dvc metrics`."""
    total, trainable = built.model.num_parameters(), built.model.num_parameters(trainable=True)
    last = progress.curve[-1]
    records, parts = len(built.train), built.parts
    drawn = micro_batches(parts.schedule, progress.step).start * parts.ordering.batch_size  # with poisson: expected
    return {
        "steps": progress.step,
        "records": records,  # examples to train on: records, or windows of documents
        "epochs": drawn / records,
        "best_step": progress.best_step,
        "stopped_early": int(progress.stopped_early),
        "train_loss_nats": last["train_loss_nats"],
        "validation_loss_nats": last["validation_loss_nats"],
        "best_validation_loss_nats": progress.best_loss,
        **progress.best_measures,
        "tokens": progress.tokens,
        "parameters": total,
        "trainable_parameters": trainable,
        "trainable_share": trainable / total,
    } | (built.private.spent(progress.step) if built.private else {})


def with_decision(built: Built) -> TaskSpec:
    """The task's record with decision thresholds chosen on the validation split, where the task has some to choose."""
    task = built.task
    if task.spec.decided_by is None:
        return task.spec
    spec = task.with_decision(*scores_and_targets(built.model, built.parts, built.validation))
    shown = ", ".join(f"{label} {threshold:.3g}" for label, threshold in (spec.thresholds or {}).items())
    print(f"thresholds with the best {spec.decided_by} on {len(built.validation):,} validation records: {shown}")
    return spec


def _base(recipe: Recipe, parts: Parts) -> adapter_folder.Base | None:
    """The base of a recipe's adapter; None where no folder has its weights: of a shallower model, or of another
    adapter.
    """
    if not isinstance(recipe, Finetune) or recipe.depth is not None:
        return None
    folder = MODELS / recipe.start
    if adapter_folder.read(folder) is not None:
        return None
    # with nf4 weights the whole model is stored (pipeline/config/compatibility.py); without steps nothing is lowered
    lowered = parts.compute.weights == "bfloat16" and bool(parts.schedule.steps)
    return adapter_folder.describe(folder, "bfloat16" if lowered else "float32")


def _write(name: str, built: Built, recipe: Recipe, tokenizer_folder: Path, progress: Progress) -> dict[str, float]:
    """Writes the model folder (with `adapter/` if the tuner has one), the summary, which it returns, and the curve."""
    memory.restore(built.model)
    built.model.shares_weights = True  # merging changes the weights of a model that is not used again
    summary = _summary(progress, built)
    model, tuner, spec = built.model, built.tuner, with_decision(built)
    weights = example_weights(built.train, built.parts.weighting.memory)
    base = _base(recipe, built.parts) if tuner.state(model) else None
    plain = tuner.merge(model) if tuner.whole else model

    def write_adapter(folder: Path) -> None:
        tuner.save_adapter(model, folder, None if base is None else base.peft_name)
        adapter_folder.add_revision(folder, base)

    def write_more(folder: Path) -> None:
        if weights is not None:
            files.write_table(folder / WEIGHTS, weights)
        if isinstance(recipe, Pretrain):
            origin = open_weights.origin(recipe.start, None if progress.step else plain, DOWNLOADS)
            if origin is not None:
                files.write_json(folder / foreign.ORIGIN, origin.model_dump())

    checkpoint.save(
        plain,
        MODELS / name,
        tokenizer=tokenizer_folder,
        labels=None if model.score is None else list(spec.outputs),  # cloze has labels without a head
        metadata=specs.written([spec.within(model.room())]),
        adapter=write_adapter if tuner.state(model) else None,
        base=None if tuner.whole else base,
        more=write_more,
    )
    curve = TRAINING / f"{name}.csv"
    with files.replacing(curve) as path:
        pa.csv.write_csv(pa.Table.from_pylist(progress.curve), path)
    files.write_json(TRAINING / f"{name}.json", summary)
    hashes = {"states": progress.states}
    integrity.write_json(TRAINING / f"{name}.hashes.json", hashes, beside=[TRAINING / f"{name}.json", curve])
    return summary
