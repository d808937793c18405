"""One model out of two that were tuned from the same one: arithmetic on weights, nothing is trained.

Each file is one rule: `build(settings) -> (base, models) -> merged`, tensors by name. Rules work on task vectors, what
tuning added: tau_i = theta_i - theta_base (Ilharco et al. 2023, section 2). This file reads the models, checks that
they belong together, and writes the result as a model folder like every other.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import files
from pipeline.config import plugins
from pipeline.config.recipe import Merge
from pipeline.errors import UserError
from pipeline.model import checkpoint
from pipeline.model.adapters import has_additions
from pipeline.model.gpt import GPT
from pipeline.tokenizer import OURS, RANKS, TOKENIZER

Tensors = Mapping[str, Tensor]
Rule = Callable[[Tensors, Sequence[Tensors]], dict[str, Tensor]]
"""(theta_base, [theta_1, ...]) -> theta; equal names and shapes everywhere."""
SCORE = "score.weight"


def task_vector(base: Tensors, tuned: Tensors) -> dict[str, Tensor]:
    """tau = theta - theta_base, in float64: added to the base again it gives the tuned float32 weight back."""
    return {name: tuned[name].double() - weight.double() for name, weight in base.items()}


def merge(name: str, chosen: Merge, models: Path) -> dict[str, float]:
    """Writes <models>/<name> as `merge.<name>` of the params says; returns `comparison`'s figures and the size.

    A classification head that one of the two models has is taken from it as it is; one that both have is merged like
    any weight, from nothing where the base has none.

    Raises:
        UserError: models that were not tuned from the same one, that disagree about their task, or that carry
            additions which no plain weight holds.
    """
    where = f"params.yaml: merge.{name}"
    rule: Rule = plugins.load("merging", chosen.rule.name).build(chosen.rule.settings("merging", f"merge.{name}.rule"))
    merged = checkpoint.load(models / chosen.of)
    tuned = [_tuned(models / one, models / chosen.of, merged, where) for one in (chosen.first, chosen.second)]
    task = united([files.read_json(models / one / "tohum.json") for one in (chosen.first, chosen.second)], where)
    base, weights = _tensors(merged), [_tensors(model) for model in tuned]
    figures = {"parameters": float(merged.num_parameters())} | comparison(base, *weights)
    head = _settle_head(base, weights)
    _put(merged, rule(base, weights), head)
    checkpoint.save(
        merged,
        models / name,
        tokenizer=models / chosen.of,
        labels=None if merged.score is None else task["labels"],
        metadata=task,
    )
    return figures


def united(tasks: Sequence[Mapping[str, Any]], where: str) -> dict[str, Any]:
    """What the merged folder's tohum.json says: all that its models' say; `objective` is the first one's.

    So a merge can be scored as each of its models, and answers in chat and behind the registry as the first does.

    Raises:
        UserError: the tasks differ in something else.
    """
    found: dict[str, Any] = {}
    for task in tasks:
        for key, value in task.items():
            if key == "max_tokens" and "labels" not in task:
                continue  # how long an example may be in training; of a text to label, how much is read
            if found.setdefault(key, value) != value and key != "objective":
                raise UserError(
                    f"{where}: its models differ in {key} ({found[key]!r} and {value!r} in their tohum.json); merge "
                    "models that agree in it"
                )
    return found


def comparison(base: Tensors, first: Tensors, second: Tensors) -> dict[str, float]:
    """How far tuning moved each model, the cosine between the two task vectors, and where their signs conflict.

    `sign_conflict_share` is of the weights that both models moved. Heads for classes do not count.
    """
    shared = {name: weight for name, weight in base.items() if name != SCORE}
    a, b = (torch.cat([part.flatten() for part in task_vector(shared, one).values()]) for one in (first, second))
    lengths = float(a.norm()), float(b.norm())
    both = (a != 0) & (b != 0)
    return {
        "task_norm_first": lengths[0],
        "task_norm_second": lengths[1],
        "task_cosine": float(a @ b) / max(lengths[0] * lengths[1], 1e-30),
        "sign_conflict_share": float((a[both].sign() != b[both].sign()).double().mean()) if bool(both.any()) else 0.0,
    }


def _tuned(folder: Path, base_folder: Path, base: GPT, where: str) -> GPT:
    """The model of a folder, when it can have been tuned from the base."""
    model, name, of = checkpoint.load(folder), folder.name, base_folder.name
    if has_additions(model) or has_additions(base):
        raise UserError(
            f"{where}: {name} or {of} carries additions (virtual tokens or bottlenecks) that no plain weight holds; "
            "merge models tuned by full, layers, gradual, lora or ia3"
        )
    ours, theirs = base.config.model_dump(), model.config.model_dump()
    odd = [f"{key} {theirs[key]!r} instead of {ours[key]!r}" for key in ours if theirs[key] != ours[key]]
    odd += [f"{file} of another vocabulary" for file in (OURS, RANKS, TOKENIZER) if _differ(folder, base_folder, file)]
    odd += [f"{key} in one of them only" for key in sorted((_tensors(base).keys() ^ _tensors(model).keys()) - {SCORE})]
    if odd:
        raise UserError(f"{where}: {name} was not tuned from {of}: {', '.join(odd)}; name models that were")
    return model


def _differ(folder: Path, other: Path, file: str) -> bool:
    first, second = (path.read_bytes() if path.is_file() else b"" for path in (folder / file, other / file))
    return first != second


def _tensors(model: GPT) -> dict[str, Tensor]:
    """The weights by name, tied ones once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _settle_head(base: dict[str, Tensor], tuned: Sequence[dict[str, Tensor]]) -> Tensor | None:
    """Takes a head that not all models have out of the arithmetic and returns it; gives the base one where all have."""
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
    """Gives the model the merged weights, and the head that was not merged."""
    score = weights.get(SCORE, head)
    model.score = None
    if score is not None:
        with torch.device("meta"):
            model.score = nn.Linear(score.shape[1], score.shape[0], bias=False)
        model.score.weight = nn.Parameter(score.clone())
    for name, parameter in model.named_parameters():
        if name != SCORE:
            parameter.copy_(weights[name])
