"""Which parts of a recipe fit together: task, records, start, loss and weighting, by what their files declare.

A part declares in its `Settings`, as class variables that are read without importing the file:

    tasks:      reads (record kinds), emits (tokens or classes), head (language or classes)
    losses:     takes (what a task may emit), roles (reference)
    tuners:     additions (true: what it adds stays beside the weights, and no recipe can start from the model)
    weighting:  reads (record kinds; without it any)
"""

from collections.abc import Iterator
from typing import Any

from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, HEADLESS, Finetune, Kind, Recipe
from pipeline.errors import UserError


def check(params: Params, name: str) -> None:
    """Refuses recipes that cannot work.

    Args:
        params: whose parts have valid settings.
        name: the file's name in errors.

    Raises:
        UserError: names the recipe, the value, and values that fit.
    """
    for where, recipe, kind in recipes(params):
        for fault in _faults(where, recipe, kind, params):
            raise UserError(f"{name}: {fault}")


def recipes(params: Params) -> Iterator[tuple[str, Recipe, Kind]]:
    """Path in params.yaml, recipe and record kind of every recipe."""
    yield "pretrain", params.pretrain, "documents"
    for model, recipe in params.finetune.items():
        yield f"finetune.{model}", recipe, recipe.data


def declared(recipe: Recipe, axis: str, name: str, otherwise: Any = None) -> Any:
    """A class variable of the settings of a recipe's part."""
    part = getattr(recipe, axis).name
    return getattr(plugins.settings_class(AXES[axis], part), name, otherwise)


def _faults(where: str, recipe: Recipe, kind: Kind, params: Params) -> Iterator[str]:
    yield from _of_records(where, recipe, kind)
    yield from _of_loss(where, recipe, params)
    yield from _of_shape(where, recipe, params)
    if isinstance(recipe, Finetune):
        yield from _of_start(where, recipe, params)


def _of_records(where: str, recipe: Recipe, kind: Kind) -> Iterator[str]:
    """Task and weighting read the recipe's record kind."""
    for axis in ("task", "weighting"):
        reads = declared(recipe, axis, "reads")
        if reads is not None and kind not in reads:
            fitting = [name for name in plugins.choices(AXES[axis]) if kind in _reads(axis, name, kind)]
            trained = "trains on documents" if where == "pretrain" else f"has data: {kind}"
            yield (
                f"{where}.{axis}.name is {getattr(recipe, axis).name!r}, which reads {', '.join(sorted(reads))}, and "
                f"the recipe {trained}; for {kind} one of: {', '.join(fitting) or 'none yet'}"
            )
    if kind == "documents" and getattr(recipe, "few", None) is not None:
        yield f"{where}.few draws records, and documents are cut into windows; set it to null"


def _reads(axis: str, name: str, kind: Kind) -> frozenset[str]:
    reads: frozenset[str] = getattr(plugins.settings_class(AXES[axis], name), "reads", frozenset({kind}))
    return reads


def _of_loss(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """The loss takes the task's outputs, and its reference gives the same."""
    emits, takes = declared(recipe, "task", "emits"), declared(recipe, "loss", "takes")
    if emits not in takes:
        yield (
            f"{where}.loss.name is {recipe.loss.name!r}, which takes {', '.join(sorted(takes))}, and task "
            f"{recipe.task.name!r} gives {emits}; choose another loss"
        )
    if "reference" not in declared(recipe, "loss", "roles"):
        return
    if not isinstance(recipe, Finetune):
        yield (
            f"{where}.loss.name is {recipe.loss.name!r}, which needs a reference model, and pretraining has none; "
            "use it in a recipe of `finetune`"
        )
    elif declared(recipe, "task", "head") == "classes" and not _has_classes(recipe.reference, params):
        yield (
            f"{where}.reference is {recipe.reference!r}, which has no classification head, and task "
            f"{recipe.task.name!r} compares classes; name a model that was trained with task classify"
        )


def _has_classes(model: str, params: Params) -> bool:
    if model in params.merge:
        merge = params.merge[model]
        return any(_has_classes(part, params) for part in (merge.first, merge.second))
    return model in params.finetune and declared(params.finetune[model], "task", "head") == "classes"


def _of_start(where: str, recipe: Finetune, params: Params) -> Iterator[str]:
    """Training can start from the model of `from`."""
    if (maker := _adds(recipe.start, params)) is not None:
        yield (
            f"{where}.from is {recipe.start!r}, whose tuner {params.finetune[maker].tuner.name!r} keeps virtual tokens "
            "or bottleneck adapters beside its weights; start from the model it was made from, or from one whose tuner "
            "changes the weights themselves or merges into them"
        )
    depth = _depth(recipe.start, params)
    if recipe.depth is not None and depth is not None and recipe.depth > depth:
        yield f"{where}.depth is {recipe.depth}, and {recipe.start!r} has {depth} blocks; lower it"


def _adds(model: str, params: Params) -> str | None:
    """The recipe whose tuner left additions in a model; None for plain weights."""
    recipe = params.finetune.get(model)
    return model if recipe is not None and declared(recipe, "tuner", "additions", False) else None


def _depth(model: str, params: Params) -> int | None:
    """Blocks of a model; None where they are known only when its open weights are read."""
    if params.pretrain.start.kind != "scratch":
        return None
    if model in params.merge:
        return _depth(params.merge[model].of, params)
    if model in params.finetune:
        return params.finetune[model].depth or _depth(params.finetune[model].start, params)
    return params.pretrain.model.n_layers


def _of_shape(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """Family, context and heads of the model; of open weights they are known when those are read."""
    task = recipe.part("task", where)
    most, prompt = getattr(task, "max_tokens", None), getattr(task, "max_prompt_tokens", None)
    if most is not None and prompt is not None and prompt >= most:
        yield (
            f"{where}.task.max_prompt_tokens is {prompt} and max_tokens {most}, which leaves no room for an answer; "
            "lower max_prompt_tokens or raise max_tokens"
        )
    if params.pretrain.start.kind != "scratch":
        return
    shape = params.pretrain.model
    if declared(recipe, "task", "head") == "classes" and shape.family in HEADLESS:
        yield (
            f"{where}.task.name is {recipe.task.name!r}, which adds a classification head, and pretrain.model.family "
            f"is {shape.family!r}, for which transformers has no classifier; use task cloze, or another family"
        )
    if most is not None and most > shape.context_length:
        yield (
            f"{where}.task.max_tokens is {most}, and pretrain.model.context_length {shape.context_length}; lower "
            "max_tokens"
        )
    layers = shape.n_layers
    if isinstance(recipe, Finetune):
        layers = recipe.depth or _depth(recipe.start, params) or layers
    for layer, heads in getattr(recipe.part("loss", where), "heads", {}).items():
        if layer >= layers or max(heads) >= shape.n_heads:
            yield (
                f"{where}.loss.heads names block {layer}, heads {heads}; the model has blocks 0 to {layers - 1} of "
                f"heads 0 to {shape.n_heads - 1}"
            )
