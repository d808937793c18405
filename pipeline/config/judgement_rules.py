"""Which experience, judge, task and loss fit together, and what else goes with answers that are judged or compared.

A part declares in its `Settings`, beside the facts of compatibility.py:

    losses:               source (records or rollouts: the experience that it learns from; without it records),
                          head (language or scalar: of the task whose pairs it compares),
                          roles (judge: it learns from the scores of one),
                          compares_samples (true: an answer is compared with the others to its prompt)
    ordering, weighting:  records_only (true: they follow the records of the data by number, which rollouts are not)
    weighting:            by_task_loss (true: a weight depends on the task's own loss, which of compared answers of
                          language is that of the first one)
    judges:               source_of (model, file or start: what `reads` names)
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from pipeline.config import plugins
from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Finetune, Recipe

COMPARED = {"pairs": "pairs of answers", "thumbs": "rated answers", "prompts": "rollouts"}
"""What a task emits -> the examples in words, where an example is no single text with its answer."""


def faults(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """The reasons why experience, judge and loss of a recipe cannot work, in words."""
    yield from _of_source(where, recipe)
    yield from _of_head(where, recipe)
    emits = _declared(recipe, "task", "emits")
    compared = emits in ("pairs", "thumbs") and _declared(recipe, "task", "head") == "language"
    if compared and _declared(recipe, "weighting", "by_task_loss", False):
        yield (
            f"{where}.weighting.name is {recipe.weighting.name!r}, which weighs an example by the likelihood of its "
            f"first answer, and loss {recipe.loss.name!r} judges answers; set it to uniform"
        )
    if recipe.privacy is not None and emits in COMPARED:
        yield (
            f"{where}.privacy is set, and task {recipe.task.name!r} trains on {COMPARED[emits]}, for which no budget "
            "is kept; set it to null"
        )
    if isinstance(recipe, Finetune):
        yield from _of_judge(where, recipe, params)


def judge_model(recipe: Finetune) -> str | None:
    """The model of the graph that a recipe's judge reads; None: another file or folder."""
    path = PurePosixPath(_reads(recipe))
    return path.name if path.parent == PurePosixPath("models") else None


def _declared(recipe: Recipe, axis: str, name: str, otherwise: Any = None) -> Any:
    return getattr(plugins.settings_class(AXES[axis], getattr(recipe, axis).name), name, otherwise)


def _reads(recipe: Finetune) -> str:
    return str(recipe.judge.settings("judges", "judge").reads)


def _of_source(where: str, recipe: Recipe) -> Iterator[str]:
    """The loss learns from what the experience gives, and so does every part that counts examples."""
    source = _declared(recipe, "loss", "source", "records")
    if source != recipe.experience.name:
        yield (
            f"{where}.experience.name is {recipe.experience.name!r}, and loss {recipe.loss.name!r} learns from "
            f"{source}; write {source}, or choose another loss"
        )
        return
    if source == "records":
        return
    for axis in ("ordering", "weighting"):
        if _declared(recipe, axis, "records_only", False):
            fitting = ", ".join(
                name
                for name in plugins.choices(AXES[axis])
                if not getattr(plugins.settings_class(AXES[axis], name), "records_only", False)
            )
            yield (
                f"{where}.{axis}.name is {getattr(recipe, axis).name!r}, which follows the records of the data, and "
                f"experience {source!r} makes new examples; one of: {fitting}"
            )
    samples = getattr(recipe.part("experience", where), "samples", None)
    if _declared(recipe, "loss", "compares_samples", False) and samples == 1:
        yield (
            f"{where}.experience.samples is 1, and loss {recipe.loss.name!r} compares the answers to a prompt: none "
            "has an advantage; set it to 2 or more"
        )
    if _declared(recipe, "task", "emits") == "prompts":
        yield from _of_lengths(where, recipe)
    if recipe.schedule.epochs is not None:
        yield (
            f"{where}.schedule.epochs is {recipe.schedule.epochs:g}, and experience {source!r} makes its own examples; "
            f"write schedule.steps: a pass over the prompts takes records / experience.prompts x experience.updates"
        )
    if getattr(recipe, "few", None) is not None:
        yield f"{where}.few draws records, and experience {source!r} makes its own examples; set it to null"


def _of_head(where: str, recipe: Recipe) -> Iterator[str]:
    """Pairs are compared by rewards, or by log-probabilities of language: tasks of both kinds emit pairs."""
    wanted, head = _declared(recipe, "loss", "head"), _declared(recipe, "task", "head")
    if wanted is not None and head != wanted:
        fitting = ", ".join(
            name
            for name in plugins.choices(AXES["loss"])
            if _declared(recipe, "task", "emits") in getattr(plugins.settings_class(AXES["loss"], name), "takes", ())
            and getattr(plugins.settings_class(AXES["loss"], name), "head", head) == head
        )
        yield (
            f"{where}.loss.name is {recipe.loss.name!r}, which compares answers by a {wanted} head, and task "
            f"{recipe.task.name!r} has a {head} head; one of: {fitting}"
        )


def _of_lengths(where: str, recipe: Recipe) -> Iterator[str]:
    """Prompt and answer are no longer than an example of the trained model's task."""
    task, answers = recipe.part("task", where), recipe.part("experience", where).max_tokens
    if (longest := task.max_prompt_tokens + answers) > task.max_tokens:
        yield (
            f"{where}.experience.max_tokens is {answers} and task.max_prompt_tokens {task.max_prompt_tokens}, together "
            f"{longest}; task.max_tokens is {task.max_tokens}: raise it, or lower either"
        )


def _of_judge(where: str, recipe: Finetune, params: Params) -> Iterator[str]:
    """A judge where the loss learns from scores, and only there; what it reads is there."""
    judge, loss, start = recipe.judge.name, recipe.loss.name, f"models/{recipe.start}"
    judged = "judge" in _declared(recipe, "loss", "roles", ())
    choices = [name for name in plugins.choices("judges") if name != "none"]
    if judged and judge == "none":
        yield f"{where}.judge.name is 'none', and loss {loss!r} learns from scores; one of: {', '.join(choices)}"
        return
    if not judged and judge != "none":
        yield (
            f"{where}.judge.name is {judge!r}, and loss {loss!r} learns from no scores; write {{name: none, reads: "
            f"{start}}}"
        )
        return
    reads, of = _reads(recipe), _declared(recipe, "judge", "source_of", "start")
    fault = f"{where}.judge.reads is {reads!r}"
    if of == "start":
        wanted = [start] if judge == "none" else list(dict.fromkeys([start, "models/base"]))
        if reads not in wanted:
            yield f"{fault}, and judge {judge!r} reads nothing of its own; write {' or '.join(wanted)}"
    elif of == "file":
        path = PurePosixPath(reads)
        if path.parts[:1] != ("inputs",) or ".." in path.parts or path.suffix != ".py":
            yield f"{fault}; expected a Python file below inputs/, where DVC sees a change, such as inputs/judge.py"
    else:
        yield from _of_reward_model(where, recipe, params, fault)


def _of_reward_model(where: str, recipe: Finetune, params: Params, fault: str) -> Iterator[str]:
    reads, model = PurePosixPath(_reads(recipe)), judge_model(recipe)
    pinned = getattr(recipe.judge.settings("judges", f"{where}.judge"), "sha256", None)
    if model is None:
        if reads.parts[:1] != ("inputs",) or ".." in reads.parts:
            yield f"{fault}; expected models/<a recipe with task reward>, or a folder below inputs/"
        elif pinned is None:
            yield f"{fault} and sha256 null; a folder below inputs/ is pinned by the SHA-256 of its files"
        return
    rewards = [name for name, one in params.finetune.items() if _is_reward(one)]
    trained = params.finetune.get(model)
    if trained is None or not _is_reward(trained):
        fitting = ", ".join(f"models/{name}" for name in rewards) or "none yet"
        yield f"{fault}, which is no model of task reward; one of: {fitting}"
    elif pinned is not None:
        yield f"{where}.judge.sha256 is set, and DVC pins a model of the graph itself; set it to null"


def _is_reward(recipe: Finetune) -> bool:
    return bool(_declared(recipe, "task", "head") == "scalar")
