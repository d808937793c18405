"""The start model and the records of a recipe, for trials outside its stage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.recipe import Kind
from pipeline.contracts import Examples
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT
from pipeline.paths import MODELS, TOKENIZER
from pipeline.training import start as starts
from pipeline.training.build import Load


class RecipeInputs(NamedTuple):
    """The start model and the records of a recipe."""

    kind: Kind
    load: Load
    inputs: list[Path]
    """Files and folders that decide the result, besides params and code."""
    tokenizer: Path
    reference: Callable[[], GPT] | None = None
    """Loads the reference model of a loss."""


def inputs_of(name: str, recipe: Any) -> RecipeInputs:
    """The inputs of a recipe (`params.finetune[name]`, or `params.pretrain` for base), as its stage reads them."""
    if name == "base":
        load, inputs = starts.start(recipe)
        return RecipeInputs("documents", load, inputs, TOKENIZER)
    load, inputs = starts.finetune_start(recipe)
    return RecipeInputs(
        recipe.data, load, inputs, MODELS / recipe.start, lambda: checkpoint.load(MODELS / recipe.reference)
    )


class First:
    """The first `count` examples of a set."""

    def __init__(self, examples: Examples, count: int) -> None:
        self._examples, self._count = examples, min(count, len(examples))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> Any:
        return self._examples[i]
