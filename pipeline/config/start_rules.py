"""What recipes may ask of open weights that transformers computes, as far as params.yaml and the start's config tell.

A part that needs one of our own families says so in its `Settings`: `own_families: ClassVar[bool] = True` (a property
where it depends on a setting).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pipeline.config.params import Params
from pipeline.config.recipe import AXES, Finetune, InitialWeights, Model, Recipe

_ENCODERS = frozenset({
    "big_bird", "data2vec-text", "electra", "ernie", "esm", "esmc", "fnet", "funnel", "gte", "jina_embeddings_v3",
    "layoutlm", "longformer", "luke", "mpnet", "mra", "neomme", "nystromformer", "perceiver", "reformer", "roformer",
    "tapas", "xlm", "xmod", "yoso",
})  # fmt: skip
"""Encoders of transformers whose names do not hold `bert` (tests/model/test_library.py compares with the library)."""
_DECODERS = frozenset({"bert-generation", "modernbert-decoder"})
OWN = get_args(Model.model_fields["family"].annotation)


def architecture(start: InitialWeights) -> tuple[str, str] | None:
    """(model_type, decoder | encoder | encoder_decoder) of a start that transformers computes.

    None: one of our families, or not known yet (fetched from a hub, not there, unreadable: training says which).
    """
    if start.kind != "folder" or start.path is None:
        return None
    try:
        raw = json.loads((Path(start.path) / "config.json").read_bytes())
        kind, first = raw["model_type"], str((raw.get("architectures") or [""])[0])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if not isinstance(kind, str) or kind in OWN:
        return None
    if raw.get("is_encoder_decoder") is True:
        return kind, "encoder_decoder"
    encodes = ("bert" in kind and kind not in _DECODERS) or kind in _ENCODERS
    return kind, "encoder" if encodes and not first.endswith(("ForCausalLM", "LMHeadModel")) else "decoder"


def faults(where: str, recipe: Recipe, params: Params) -> Iterator[str]:
    """The reasons why a recipe cannot work on its open weights, in words."""
    start = params.pretrain.start
    if recipe.task.name == "unchanged":
        yield from _of_unchanged(where, recipe, start)
    if (found := architecture(start)) is None:
        return
    kind, reads = found
    model = f"pretrain.start is a {kind} model, which transformers computes"
    for axis in AXES:
        if getattr(recipe.part(axis, where), "own_families", False):
            yield (
                f"{where}.{axis} is {getattr(recipe, axis).name!r}, which needs one of our own families "
                f"({', '.join(OWN)}), and {model}; choose another"
            )
    if params.compute.compile:
        yield f"compute.compile is true, and {model} and not compiled; set it to false"
    if isinstance(recipe, Finetune) and recipe.depth is not None:
        yield f"{where}.depth is {recipe.depth}, and {model}, whose blocks are not dropped; set it to null"
    yield from _of_task(where, recipe, kind, reads)


def _of_unchanged(where: str, recipe: Recipe, start: InitialWeights) -> Iterator[str]:
    if where != "pretrain" or start.kind == "scratch":
        yield f"{where}.task.name is 'unchanged', which copies open weights; it is for pretrain with a start of them"
    elif recipe.schedule.trains:
        steps, epochs = recipe.schedule.steps, recipe.schedule.epochs
        length = (
            f"epochs {epochs:g}; write steps: 0 instead" if epochs is not None else f"steps {steps}; set steps to 0"
        )
        yield f"{where}.task.name is 'unchanged' and schedule.{length}"


def _of_task(where: str, recipe: Recipe, kind: str, reads: str) -> Iterator[str]:
    task: Any = recipe.part("task", where)
    name = recipe.task.name
    if getattr(task, "mask_documents", False):
        yield f"{where}.task.mask_documents is true, which our own families compute; set it to false"
    if name == "unchanged" or reads == "decoder":
        return
    if where == "pretrain":
        yield (
            f"{where}.task.name is {name!r}, and pretrain.start is a {kind} model, an {reads.replace('_', '-')}; use "
            "task unchanged with 0 steps, and fine-tune it"
        )
    elif reads == "encoder" and getattr(task, "head", "") not in ("classes", "scalar"):
        yield (
            f"{where}.task.name is {name!r}, and pretrain.start is a {kind} model, an encoder, which generates no text "
            "and has no language head; use task classify"
        )
    elif reads == "encoder_decoder" and name != "instruct":
        yield (
            f"{where}.task.name is {name!r}, and pretrain.start is a {kind} model, an encoder-decoder; use task "
            "instruct: its encoder reads the question, its decoder answers"
        )
