"""A recipe's parts and examples, built from its settings, ready to train.

Parts are independent of each other and of this file: `plugins` loads the file of each axis by its name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline import experience as experiences
from pipeline import integrity, judges
from pipeline.config import plugins
from pipeline.config.compatibility import declared
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Compute, Finetune, Kind, Recipe
from pipeline.contracts import Examples, Learner
from pipeline.errors import UserError
from pipeline.experience import Experience
from pipeline.losses import Loss
from pipeline.model import memory
from pipeline.model.adapters import has_additions
from pipeline.model.compilation import compiled
from pipeline.model.device import set_up
from pipeline.model.gpt import GPT
from pipeline.model.layers import keep_layers
from pipeline.ordering import Ordering
from pipeline.paths import MODELS, SAMPLES
from pipeline.seeds import seed_for
from pipeline.tasks import Task
from pipeline.tokenizer import Tokenizer
from pipeline.training import footprint, forecast
from pipeline.training.examples import FewShot, PackedWindows, Subset, load_examples, task_context
from pipeline.training.examples import Records as TaskRecords
from pipeline.training.loop import Parts
from pipeline.training.run import Log, Trainer
from pipeline.training.schedule import micro_batches, resolved

if TYPE_CHECKING:
    from pipeline.training.private import Private

Load = Callable[[torch.Generator, torch.device], GPT]
"""Loads or initialises the start model on a device; all randomness comes from the generator."""


@dataclass(frozen=True)
class Built:
    """A recipe's parts and examples, ready to train."""

    model: GPT
    task: Task
    tuner: Any
    parts: Parts
    train: PackedWindows | TaskRecords
    validation: Examples
    experience: Experience
    private: "Private | None" = None

    def require_memory(self, where: str, recipe: Recipe, compute: Compute) -> int:
        """The expected peak in MiB. Raises UserError if it is more than the machine has."""
        sized = self.experience.sized
        ordering, n = self.parts.ordering, len(sized)
        batches = forecast.sampled(
            self.task,
            sized,
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
            self.model, self.parts, self.experience, self.validation, recipe.validation, params.runtime, run, name
        )


def build(  # noqa: PLR0913 - everything that decides a training
    where: str,
    recipe: Recipe,
    kind: Kind,
    load: Load,
    params: Params,
    tokenizer_folder: Path,
    reference: Callable[[], GPT] | None = None,
) -> Built:
    """The recipe's start model, parts and examples; arguments and errors as of `train` (recipe.py)."""
    device = set_up(params.compute)
    generator = torch.Generator().manual_seed(seed_for(recipe.seed, "weights"))
    model = load(generator, device)
    require_intact(tokenizer_folder)
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
    train_set, validation_set = _examples(recipe, kind, where, task, model.room())
    judge = None
    if isinstance(recipe, Finetune):
        judge = _part(recipe, "judge", where, judges.Context(tokenizer, params.compute, task, f"{where}.judge"))
    one_reference = (
        None if reference is None else cache(reference)
    )  # the loss's is the one that validation compares with
    learner = Learner(model.to(device), task, train_set, params.compute, tokenizer, one_reference, judge)
    parts, ordered, experience = _parts(recipe, where, task, learner, tuner, validation_set)
    private = None
    if recipe.privacy is not None:
        from pipeline.training.private import build as build_private  # importing opacus takes 3 s

        private = build_private(recipe, where, model, parts, train_set, ordered)
        parts = replace(parts, gradients=private)
    return Built(model, task, tuner, parts, train_set, ordered, experience, private)


def _examples(
    recipe: Recipe, kind: Kind, where: str, task: Task, room: int
) -> tuple[PackedWindows | TaskRecords, PackedWindows | TaskRecords]:
    """The training and the validation examples. Raises UserError where a split gives none."""
    few = getattr(recipe, "few", None)
    form = getattr(recipe.part("task", where), "form", None)
    few_shot = None if few is None else FewShot(few, recipe.seed, form)
    train_set = load_examples(task, kind, "train", room, few_shot)
    validation_set = load_examples(task, kind, "validation", room)
    for split, examples in (("train", train_set), ("validation", validation_set)):
        left_out = getattr(examples, "left_out", {})
        shown = ", ".join(f"{reason} {count:,}" for reason, count in sorted(left_out.items()))
        if not len(examples):
            why = f"every record is left out: {shown}; see reports/gates/samples" if shown else "it has no record"
            raise UserError(f"{where}: the {split} split gives no example: {why}")
        if shown:
            print(f"{where}: {split} records left out: {shown}")
    return train_set, validation_set


def require_intact(*inputs: Path) -> None:
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


def _parts(  # noqa: PLR0913 - everything that parts are built from
    recipe: Recipe, where: str, task: Task, learner: Learner, tuner: Any, validation_set: PackedWindows | TaskRecords
) -> tuple[Parts, Examples, Experience]:
    """The parts, the validation examples in the order of their use, and the experience."""
    ordering: Ordering = _part(recipe, "ordering", where, learner)
    validation = Subset(validation_set, ordering.validation_rows(validation_set))
    schedule = resolved(recipe.schedule, len(learner.examples), ordering.batch_size)
    loss: Loss = _part(recipe, "loss", where, learner)
    loss.modules.to(learner.model.embed.weight.device)
    context = experiences.Context(
        learner,
        ordering,
        loss,
        partial(micro_batches, schedule),
        recipe.seed,
        validation,
        where,
        declared(recipe, "loss", "compares_samples", False),
    )
    experience: Experience = _part(recipe, "experience", where, context)
    parts = Parts(
        task=task,
        loss=loss,
        ordering=ordering,
        weighting=_part(recipe, "weighting", where, learner),
        optimizer=_part(recipe, "optimizer", where, [*tuner.groups(learner.model), *_groups(loss.modules)]),
        schedule=schedule,
        compute=learner.compute,
        seed=recipe.seed,
    )
    return parts, validation, experience


def _groups(modules: nn.ModuleDict) -> list[dict[str, Any]]:
    """The optimizer's group of a loss's own modules: trained at the recipe's rate, from the first update on."""
    named = {name: p for name, p in modules.named_parameters() if p.requires_grad}
    if not named:
        return []
    return [{"params": list(named.values()), "names": list(named), "factor": 1.0, "begins": 0.0}]
