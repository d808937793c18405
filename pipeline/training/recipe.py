"""Training of one recipe: runs its parts (build.py), writes the model folder, the summary and the curve."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
from torch import Tensor

from pipeline import closure, files, foreign, integrity
from pipeline.config.params import Params
from pipeline.config.recipe import Finetune, Kind, Pretrain, Recipe
from pipeline.model import adapter_folder, checkpoint, memory, open_weights
from pipeline.model.gpt import GPT
from pipeline.paths import DOWNLOADS, MODELS, SAMPLES, TRAINING
from pipeline.prompts import spec as specs
from pipeline.prompts.spec import TaskSpec
from pipeline.training import state as states
from pipeline.training import state_locks
from pipeline.training.build import Built, Load, build, require_intact
from pipeline.training.examples import PackedWindows, Records
from pipeline.training.kept import Kept, updates_of
from pipeline.training.loop import Parts, scores_and_targets
from pipeline.training.progress import Progress
from pipeline.training.run import Log

WEIGHTS = "weights.parquet"
"""In a model folder: the weight of every training record, if the weighting records weights."""


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
        require_intact(*inputs)
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


def _trained_share(name: str, model: GPT) -> str:
    """The number of weights that are trained, for the log: a tuner that trains the classification head alone shows."""
    total, trained = model.num_parameters(), model.num_parameters(trainable=True)
    return f"{name}: trains {trained:,} of {total:,} weights ({trained / total:.2%})"


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
    records = len(built.train)
    return {
        "steps": progress.step,
        "records": records,  # examples to train on: records, or windows of documents
        "epochs": built.experience.seen(progress.step) / records,
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
