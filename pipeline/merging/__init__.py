"""Model merging: one model from two that were fine-tuned from the same base, by arithmetic on weights.

Each file is one merging method: `build(settings) -> (base, models) -> merged`, tensors by name. Methods work on task
vectors, the weight changes of fine-tuning: tau_i = theta_i - theta_base (Ilharco et al. 2023, section 2). This file
reads the models, checks that they have the same base, and writes the result as an ordinary model folder.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import plugins
from pipeline.config.recipe import Merge
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.adapters import has_additions
from pipeline.model.gpt import GPT
from pipeline.model.library import LibraryModel
from pipeline.prompts import spec as specs
from pipeline.prompts.spec import TaskSpec
from pipeline.tokenizer import OURS, RANKS, TOKENIZER, export

Tensors = Mapping[str, Tensor]
MergeRule = Callable[[Tensors, Sequence[Tensors]], dict[str, Tensor]]
"""(theta_base, [theta_1, ...]) -> theta; equal names and shapes everywhere."""
SCORE = "score.weight"


def task_vector(base: Tensors, tuned: Tensors) -> dict[str, Tensor]:
    """tau = theta - theta_base, in float64: added to the base again it gives the tuned float32 weight back."""
    return {name: tuned[name].double() - weight.double() for name, weight in base.items()}


def merge(name: str, chosen: Merge, models: Path) -> dict[str, float]:
    """Writes <models>/<name> by `merge.<name>` of the params; returns the figures of `comparison` and the size.

    A classification head of one of the two models is copied; if both have one, it is merged like any weight, from zeros
    if the base has none.

    Raises:
        UserError: models without the same base, with conflicting tasks, or with adapters that cannot be merged into
            plain weights.
    """
    where = f"params.yaml: merge.{name}"
    rule: MergeRule = plugins.load("merging", chosen.rule.name).build(
        chosen.rule.settings("merging", f"merge.{name}.rule")
    )
    merged = checkpoint.load(models / chosen.of)
    tuned = [
        _tuned(models / tuned_name, models / chosen.of, merged, where) for tuned_name in (chosen.first, chosen.second)
    ]
    tasks = merged_tasks([specs.read(models / part) for part in (chosen.first, chosen.second)], where)
    base, weights = _tensors(merged), [_tensors(model) for model in tuned]
    figures = {"parameters": float(merged.num_parameters())} | comparison(base, *weights)
    head = _settle_head(base, weights)
    _put(merged, rule(base, weights), head)
    checkpoint.save(
        merged,
        models / name,
        tokenizer=models / chosen.of,
        labels=None if merged.score is None else next(list(task.outputs) for task in tasks if task.outputs),
        metadata=specs.written(tasks),
    )
    return figures


HEADS = frozenset({"classify", "multi_label", "regress", "reward"})
"""Tasks whose answers are the outputs of a linear head; merged heads must answer the same task."""


def merged_tasks(tasks: Sequence[Sequence[TaskSpec]], where: str) -> list[TaskSpec]:
    """The tasks of a merged model: those of both models, each once, the first model's first.

    So it can be evaluated as each of its models; in chat and behind the registry it answers as the first.

    Raises:
        UserError: two tasks with different labels or templates, or that read a text differently.
    """
    merged: list[TaskSpec] = []
    for spec in (spec for model in tasks for spec in model):
        for other in merged:
            keys = ["labels"] if other.labels and spec.labels else []
            keys += ["template"] if other.template and spec.template else []
            keys += ["name"] if {other.name, spec.name} <= HEADS else []
            keys += ["mean", "deviation"] if other.name == spec.name == "regress" else []
            if other.name == spec.name and spec.outputs:  # how a text is read decides its label
                keys += ["pattern", "verbalizers", "max_tokens", "max_prompt_tokens"]
            for key in keys:
                _require_equal(key, getattr(other, key), getattr(spec, key), where)
        places = [place for place, other in enumerate(merged) if other.name == spec.name]
        if not places:
            merged.append(spec)
        for place in places:
            merged[place] = _with_the_larger_limits(merged[place], spec)
    # thresholds were chosen on the scores of one of the models; those of the merged one are others
    return [task.model_copy(update={"thresholds": None, "decided_by": None}) for task in merged]


def _with_the_larger_limits(spec: TaskSpec, other: TaskSpec) -> TaskSpec:
    """The spec with the larger limits of both: each model was trained up to its own."""
    limits = ("max_tokens", "max_prompt_tokens")
    return spec.model_copy(
        update={key: max(getattr(spec, key) or 0, getattr(other, key) or 0) or None for key in limits}
    )


def _require_equal(key: str, ours: Any, theirs: Any, where: str) -> None:
    if ours != theirs:
        raise UserError(
            f"{where}: its models differ in {key} ({ours!r} and {theirs!r} in their tohum.json); merge "
            "models that agree in it"
        )


def comparison(base: Tensors, first: Tensors, second: Tensors) -> dict[str, float]:
    """Norms of both task vectors, the cosine between them, and the share of conflicting signs.

    `sign_conflict_share` is over the weights that both models changed. Classification heads are left out.
    """
    shared = {name: weight for name, weight in base.items() if name != SCORE}
    a, b = (torch.cat([part.flatten() for part in task_vector(shared, tuned).values()]) for tuned in (first, second))
    norms = float(a.norm()), float(b.norm())
    both = (a != 0) & (b != 0)
    return {
        "task_norm_first": norms[0],
        "task_norm_second": norms[1],
        "task_cosine": float(a @ b) / max(norms[0] * norms[1], 1e-30),
        "sign_conflict_share": float((a[both].sign() != b[both].sign()).double().mean()) if bool(both.any()) else 0.0,
    }


def _tuned(folder: Path, base_folder: Path, base: GPT, where: str) -> GPT:
    """Loads a model. Raises UserError if it cannot have been fine-tuned from the base."""
    model, name, of = checkpoint.load(folder), folder.name, base_folder.name
    if has_additions(model) or has_additions(base):
        raise UserError(
            f"{where}: {name} or {of} has virtual tokens or bottleneck adapters, which are not part of its weights; "
            "merge models trained by a tuner that changes the weights themselves or merges into them"
        )
    if LibraryModel in (type(base), type(model)) and model.score is not None:
        raise UserError(
            f"{where}: {name} is a classifier that transformers computes; its network is named and built otherwise "
            f"than that of {of}, so the two cannot be merged; merge models without a classification head, or of one of "
            "our own families"
        )
    ours, theirs = base.config.model_dump(), model.config.model_dump()
    differences = [f"{key} {theirs[key]!r} instead of {ours[key]!r}" for key in ours if theirs[key] != ours[key]]
    differences += [
        f"{file} of another vocabulary" for file in (OURS, RANKS, TOKENIZER) if _differ(folder, base_folder, file)
    ]
    differences += [
        f"{key} in one of them only" for key in sorted((_tensors(base).keys() ^ _tensors(model).keys()) - {SCORE})
    ]
    if differences:
        raise UserError(f"{where}: {name} was not tuned from {of}: {', '.join(differences)}; name models that were")
    return model


def _differ(folder: Path, other: Path, file: str) -> bool:
    first, second = (path.read_bytes() if path.is_file() else b"" for path in (folder / file, other / file))
    if file == TOKENIZER and first and second:  # the format of its texts belongs to each model's task
        return export.vocabulary_part(first) != export.vocabulary_part(second)
    return first != second


def _tensors(model: GPT) -> dict[str, Tensor]:
    """The weights by name, without copies of tied ones."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _settle_head(base: dict[str, Tensor], tuned: Sequence[dict[str, Tensor]]) -> Tensor | None:
    """Removes and returns a head that only some models have; gives the base a head of zeros if only it has none."""
    heads = [tensors[SCORE] for tensors in tuned if SCORE in tensors]
    if len(heads) == len(tuned):
        if SCORE not in base or base[SCORE].shape != heads[0].shape:
            base[SCORE] = torch.zeros_like(heads[0])
        return None
    for tensors in (base, *tuned):
        tensors.pop(SCORE, None)
    return heads[0] if heads else None


@torch.no_grad()
def _put(model: GPT, weights: Tensors, head: Tensor | None) -> None:
    """Copies the merged weights, and the head that was not merged, into the model."""
    score = weights.get(SCORE, head)
    model.score = None
    if score is not None:
        with torch.device("meta"):
            model.score = nn.Linear(score.shape[1], score.shape[0], bias=False)
        model.score.weight = nn.Parameter(score.clone())
    for name, parameter in model.named_parameters():
        if name != SCORE:
            parameter.copy_(weights[name])
