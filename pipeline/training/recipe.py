"""From a recipe to a trained model folder: builds its parts, runs them, writes the outs.

No part knows another's name, and this file knows none of theirs: it asks `plugins` for the file of each axis.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from pipeline import files, plugins
from pipeline.config import Kind, Params, Recipe, UserError, seed_for
from pipeline.data.shards import Shard, Windows, windows
from pipeline.model import checkpoint
from pipeline.model.additions import has_additions
from pipeline.model.device import compiled, set_up
from pipeline.model.gpt import GPT
from pipeline.objectives import Context, Objective
from pipeline.tokenizer import Tokenizer
from pipeline.training import state as states
from pipeline.training.loop import Examples, Parts, difficulty
from pipeline.training.run import Log, Progress, Trainer

SAMPLES = Path("data/samples")
MODELS = Path("models")
TRAINING = Path("reports/training")


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

    def __init__(self, source: Windows, objective: Objective) -> None:
        self._source, self._objective = source, objective

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._objective.example({"ids": self._source.window(i)})


def train(
    name: str,
    where: str,
    recipe: Recipe,
    kind: Kind,
    load: Callable[[torch.Generator, torch.device], GPT],
    inputs: list[Path],
    params: Params,
    run: Tracker,
    tokenizer_folder: Path,
) -> None:
    """Trains one recipe and writes models/<name>, reports/training/<name>.json and .csv.

    Args:
        name: the model's name in the graph; `where`: the recipe's path in params.yaml.
        kind: the record kind it learns from.
        load: gives the start model on a device; the generator draws what is fresh.
        inputs: files and folders that decide the result, besides params and code.
        tokenizer_folder: the vocabulary that goes with the model.

    Raises:
        UserError: whatever the parts find wrong with params or data.
    """
    device = set_up(params.compute)
    generator = torch.Generator().manual_seed(seed_for(recipe.seed, "weights"))
    with run.work():
        model = load(generator, device)
        tokenizer = Tokenizer.load(tokenizer_folder)
        objective, tuner = _learn(recipe, where, model, tokenizer, kind, generator)
        train_set = examples(objective, kind, "train", model, getattr(recipe, "few", None), recipe.seed)
        validation_set = examples(objective, kind, "validation", model)
        parts = _parts(recipe, where, objective, tuner, model.to(device), params)
        key = states.fingerprint(
            {"recipe": recipe.model_dump(mode="json"), "compute": params.compute.model_dump()}, inputs
        )
        with states.locked(key) as state:
            run.continue_in(state.folder)
            if len(train_set):  # an empty split is named by the trainer
                parts.ordering.prepare(partial(difficulty, model, parts, train_set))
            compiled(model, params.compute)
            trainer = Trainer(model, parts, train_set, validation_set, recipe.validation, params.runtime, run, name)
            progress = trainer.run(state)
            summary = _summary(progress, model)
            _write(name, model, tuner, objective, recipe, tokenizer_folder, progress, summary)
            state.clear()
    run.artifact(TRAINING / f"{name}.csv")
    run.model(MODELS / name, summary)


def examples(
    objective: Objective, kind: Kind, split: str, model: GPT, few: int | None = None, seed: int = 0
) -> Examples:
    """The examples of one split: windows of documents, or every record tokenized once; `few` of each label if asked."""
    if kind == "documents":
        if few is not None:
            raise UserError("params.yaml: few is for records; set it to null for documents, which are cut into windows")
        return PackedWindows(windows(Shard.open(SAMPLES / kind, split), model.room()), objective)
    # pq.read_table would import pandas: half a second a stage
    table = pq.ParquetFile(SAMPLES / kind / f"{split}.parquet").read()
    records = table.to_pylist()
    return [objective.example(record) for record in (records if few is None else _drawn(records, few, seed))]


def _drawn(records: list[dict[str, Any]], few: int, seed: int) -> list[dict[str, Any]]:
    """`few` records of each label, which ones is the seed's; in the order of the file."""
    rng = np.random.default_rng(seed_for(seed, "few"))
    by_label: dict[str, list[int]] = {}
    if not records:
        return []
    for number, record in enumerate(records):
        by_label.setdefault(record.get("label", ""), []).append(number)
    chosen = [rng.choice(numbers, min(few, len(numbers)), replace=False) for _, numbers in sorted(by_label.items())]
    return [records[i] for i in sorted(np.concatenate(chosen).tolist())]


def _learn(
    recipe: Recipe, where: str, model: GPT, tokenizer: Tokenizer, kind: Kind, generator: torch.Generator
) -> tuple[Objective, Any]:
    labels: list[str] = []
    if kind == "labelled":
        table = pq.ParquetFile(SAMPLES / kind / "train.parquet").read(columns=["label"])
        labels = sorted(set(table["label"].to_pylist()))
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}; start from a "
            "model of this vocabulary, or set tokenize.method to `folder` with the model's own"
        )
    context = Context(tokenizer, model.config.context_length, labels)
    objective = plugins.load("objectives", recipe.objective.name).build(recipe.part("objective", where), context)
    tuner = plugins.load("tuners", recipe.tuner.name).build(recipe.part("tuner", where))
    if has_additions(model):
        raise UserError(
            f"{where}.from: that model carries additions (virtual tokens or bottlenecks) that no plain weight holds; "
            "start from the model it was made from, or from one tuned by full, layers, gradual, lora or ia3"
        )
    objective.prepare(model, generator)
    tuner.apply(model, generator, tokenizer.encode)
    if (room := model.room()) < max(2, longest := objective.task.get("max_tokens", 0)):
        raise UserError(
            f"{where}.tuner: its virtual tokens leave room for {max(room, 0)} of {model.config.context_length} tokens, "
            f"objective.max_tokens is {longest or 'not set'}; use fewer virtual tokens or lower max_tokens"
        )
    return objective, tuner


def _parts(recipe: Recipe, where: str, objective: Objective, tuner: Any, model: GPT, params: Params) -> Parts:
    def built(axis: str, folder: str, *more: Any) -> Any:
        name = getattr(recipe, axis).name
        return plugins.load(folder, name).build(recipe.part(axis, where), *more)

    return Parts(
        objective=objective,
        ordering=built("ordering", "ordering"),
        weighting=built("weighting", "weighting", objective.task.get("labels", [])),
        optimizer=built("optimizer", "optimizers", tuner.groups(model)),
        schedule=recipe.schedule,
        compute=params.compute,
        seed=recipe.seed,
    )


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
    model: GPT,
    tuner: Any,
    objective: Objective,
    recipe: Recipe,
    tokenizer_folder: Path,
    progress: Progress,
    summary: dict[str, float],
) -> None:
    """The model folder (merged, with `adapter/` where the tuner has one), the summary and the curve."""
    start = getattr(recipe, "start", None)
    base = (MODELS / start).as_posix() if isinstance(start, str) else None
    checkpoint.save(
        tuner.merge(model),
        MODELS / name,
        tokenizer=tokenizer_folder,
        labels=None if model.score is None else objective.task["labels"],  # cloze learns labels without a head
        metadata=objective.task,
        adapter=(lambda folder: tuner.save_adapter(model, folder, base)) if tuner.state(model) else None,
    )
    files.write_json(TRAINING / f"{name}.json", summary)
    with files.replacing(TRAINING / f"{name}.csv") as path:
        pa.csv.write_csv(pa.Table.from_pylist(progress.curve), path)
