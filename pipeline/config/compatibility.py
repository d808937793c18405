"""Which parts of a recipe fit together: task, records, start, loss and weighting, by what their files declare.

A part declares in its `Settings`, as class variables that are read without importing the file:

    tasks:      reads (record kinds), emits (tokens, classes, labels, number, pairs, thumbs or prompts), head (language,
                classes or scalar), measures (what validation can keep weights by), answers_as (the task that the
                trained model's folder names; without it the task itself)
    losses:     takes (what a task may emit), roles (reference; judge: judgement_rules.py)
    any part:   own_families (true: not for a start that transformers computes; start_rules.py)
    tuners:     additions (true: what it adds stays beside the weights, and no recipe can start from the model)
                freezes (false: every weight is trained)
    weighting:  reads (record kinds; without it any), takes (what a task may emit; without it anything), by_example
                (true: a weight depends on its own example alone)
"""

from collections.abc import Iterator
from typing import Any

from pipeline.config import judgement_rules, plugins, start_rules
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
        for fault in [*faults(where, recipe, kind, params), *_of_compute(where, recipe, params)]:
            raise UserError(f"{name}: {fault}")
    for fault in [*_of_references(params), *_of_merges(params)]:
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


def faults(where: str, recipe: Recipe, kind: Kind, params: Params) -> Iterator[str]:
    """The reasons why a recipe cannot work, in words."""
    yield from _of_records(where, recipe, kind)
    yield from _of_outputs(where, recipe)
    yield from _of_validation(where, recipe)
    yield from _of_loss(where, recipe, params)
    yield from _of_shape(where, recipe, params)
    yield from judgement_rules.faults(where, recipe, params)
    yield from start_rules.faults(where, recipe, params)
    yield from _of_storage(where, recipe, params)
    if isinstance(recipe, Finetune):
        yield from _of_start(where, recipe, params)


def _of_compute(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """Memory is saved only in ways that the recipe's gradients allow."""
    compute = params.compute
    if not recipe.schedule.trains:
        return
    if compute.weights == "nf4" and not declared(recipe, "tuner", "freezes", True):
        yield (
            f"compute.weights is nf4, and {where}.tuner.name is {recipe.tuner.name!r}, which trains every weight: "
            "4-bit weights cannot be trained; take lora or another adapter there, or set compute.weights to float32"
        )
    if recipe.privacy is not None and compute.checkpoint_activations:
        yield (
            f"compute.checkpoint_activations is true, and {where} has privacy, whose examples pass one by one: there "
            "is nothing to save; set it to false"
        )


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


def _of_outputs(where: str, recipe: Recipe) -> Iterator[str]:
    """Loss and weighting take what the task emits."""
    emits = declared(recipe, "task", "emits")
    for axis in ("loss", "weighting"):
        takes = declared(recipe, axis, "takes")
        if takes is not None and emits not in takes:
            yield (
                f"{where}.{axis}.name is {getattr(recipe, axis).name!r}, which takes {', '.join(sorted(takes))}, and "
                f"task {recipe.task.name!r} gives {emits}; one of: {', '.join(_taking(axis, emits))}"
            )


def _of_validation(where: str, recipe: Recipe) -> Iterator[str]:
    """Weights are kept by a measure of the task."""
    keep, measures = recipe.validation.keep, declared(recipe, "task", "measures", ())
    if not isinstance(keep, str) and keep.measure not in measures:
        yield (
            f"{where}.validation.keep.measure is {keep.measure!r}, and task {recipe.task.name!r} has "
            f"{', '.join(measures) or 'none'}; {'one of those, or ' if measures else ''}keep: best"
        )


def _of_loss(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """The loss fits accumulation, privacy and weighting, and its reference gives the same outputs."""
    loss = recipe.part("loss", where)
    if not getattr(loss, "by_example", True):
        otherwise = ", or set hidden to 0" if getattr(loss, "hidden", 0) else ""
        if recipe.schedule.accumulate > 1:
            yield (
                f"{where}.loss compares the examples of a micro-batch with each other, and schedule.accumulate is "
                f"{recipe.schedule.accumulate}; set it to 1{otherwise}"
            )
        if recipe.privacy is not None:
            yield f"{where}.loss compares examples with each other, which privacy forbids; take another loss{otherwise}"
    if recipe.privacy is not None and not declared(recipe, "weighting", "by_example", False):
        yield (
            f"{where}.weighting.name is {recipe.weighting.name!r}; with privacy a weight may depend on its own example "
            "alone, or clipping bounds nothing; use uniform, classes or focal"
        )
    if "reference" not in declared(recipe, "loss", "roles"):
        if isinstance(recipe, Finetune) and recipe.reference != recipe.start:
            yield (
                f"{where}.reference is {recipe.reference!r}, and loss {recipe.loss.name!r} compares with no model; "
                f"write the same as in `from`, {recipe.start!r}"
            )
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


def _taking(axis: str, emits: str) -> list[str]:
    """The variants on an axis that take what a task emits."""
    classes = {name: plugins.settings_class(AXES[axis], name) for name in plugins.choices(AXES[axis])}
    return [name for name, settings in classes.items() if emits in getattr(settings, "takes", {emits})]


def _has_classes(model: str, params: Params) -> bool:
    if model in params.merge:
        merge = params.merge[model]
        return any(_has_classes(part, params) for part in (merge.first, merge.second))
    recipe = params.finetune.get(model)
    return recipe is not None and all(declared(recipe, "task", name) == "classes" for name in ("head", "emits"))


def _of_start(where: str, recipe: Finetune, params: Params) -> Iterator[str]:
    """Training can start from the model of `from`."""
    if (maker := _adds(recipe.start, params)) is not None:
        yield (
            f"{where}.from is {recipe.start!r}, whose tuner {_recipe(maker, params).tuner.name!r} keeps virtual tokens "
            "or bottleneck adapters beside its weights; start from the model it was made from, or from one whose tuner "
            "changes the weights themselves or merges into them"
        )
    depth = _depth(recipe.start, params)
    if recipe.depth is not None and depth is not None and recipe.depth > depth:
        yield f"{where}.depth is {recipe.depth}, and {recipe.start!r} has {depth} blocks; lower it"


def _of_storage(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """A model folder that holds an adapter only has models/base as base: the stages that read models depend on it."""
    tuner = recipe.part("tuner", where)
    key = next((key for key in ("merged", "with_base") if getattr(tuner, key, True) is False), None)
    if key is None:
        return
    setting = f"{where}.tuner.{key} is false, which stores the adapter without its base"
    if not isinstance(recipe, Finetune):
        yield f"{setting}, and pretrain makes the base of all other models; set it to true"
    elif recipe.start != "base":
        yield (
            f"{setting}, and `from` is {recipe.start!r}; only `base` is a dependency of every stage that would read "
            "this model: set it to true, or `from` to base"
        )
    elif params.compute.weights == "nf4":
        yield (
            f"{setting}, and compute.weights is nf4: a reader of the adapter would need the same 4-bit weights; set "
            "it to true, or compute.weights to bfloat16"
        )
    elif recipe.depth is not None:
        yield (
            f"{setting}, and depth is {recipe.depth}: no folder has the base with so few blocks; set it to true, or "
            "depth to null"
        )


def _adds(model: str, params: Params) -> str | None:
    """The recipe whose tuner left additions in a model; None for plain weights."""
    if model in params.merge:
        return None
    return model if declared(_recipe(model, params), "tuner", "additions", False) else None


def _recipe(model: str, params: Params) -> Recipe:
    """The recipe that makes a model; not for merges."""
    return params.pretrain if model == "base" else params.finetune[model]


def _of_references(params: Params) -> Iterator[str]:
    """No model is made, directly or not, with itself as reference."""

    def needs(model: str) -> list[str]:
        if model in params.merge:
            merge = params.merge[model]
            return [merge.of, merge.first, merge.second]
        recipe = params.finetune.get(model)
        if recipe is None:
            return []
        judge = judgement_rules.judge_model(recipe)
        return [recipe.start, recipe.reference, *([] if judge is None else [judge])]

    for model in params.finetune:
        waiting, seen = needs(model), set[str]()
        while waiting:
            step = waiting.pop()
            if step == model:
                yield (
                    f"finetune.{model}: its `from`, `reference` or judge is made with {model!r} itself; no model can "
                    "be made from itself"
                )
                return
            if step not in seen:
                seen.add(step)
                waiting += needs(step)


def _of_merges(params: Params) -> Iterator[str]:
    """Merged models have plain weights, equal depth, and tasks that read and answer alike."""
    for name, merge in params.merge.items():
        for key, model in (("of", merge.of), ("first", merge.first), ("second", merge.second)):
            if _adds(model, params) is not None:
                yield (
                    f"merge.{name}.{key} is {model!r}, whose tuner keeps virtual tokens or bottleneck adapters beside "
                    "its weights, which cannot be merged"
                )
            if _depth(model, params) != _depth(merge.of, params):
                yield f"merge.{name}.{key} is {model!r} of another depth than {merge.of!r}; merge models of one depth"


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
    if declared(recipe, "task", "head") in ("classes", "scalar") and shape.family in HEADLESS:
        yield (
            f"{where}.task.name is {recipe.task.name!r}, which adds a classification head, and pretrain.model.family "
            f"is {shape.family!r}, for which transformers has no classifier; use task cloze, or another family"
        )
    virtual = getattr(recipe.part("tuner", where), "virtual_tokens", 0)
    if most is not None and most > shape.context_length - virtual:
        taken = f", of which virtual tokens take {virtual}" if virtual else ""
        yield (
            f"{where}.task.max_tokens is {most}, and pretrain.model.context_length {shape.context_length}{taken}; "
            "lower max_tokens"
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
