"""The model that a recipe starts from, and the files that decide the result.

Both functions return how to load that model (`Load`) and the inputs: files and folders whose bytes are part of the key
under which an interrupted training is continued. They are not read before they are needed.
"""

from pathlib import Path

import torch

from pipeline import foreign
from pipeline.config.recipe import Finetune, Pretrain
from pipeline.model import checkpoint, extension, open_weights
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.paths import DOWNLOADS, MODELS, SAMPLES, TOKENIZER
from pipeline.tokenizer import Tokenizer
from pipeline.training.build import Load


def start(recipe: Pretrain) -> tuple[Load, list[Path]]:
    """Start of pretraining: fresh weights, or open ones, which are fetched if they are not here yet.

    Open ones get rows for the tokens that the vocabulary adds to theirs (`tokenize.method: extend`).

    Raises:
        UserError: open weights that are not there, cannot be fetched, or differ from their pin.
    """
    inputs, folder = [SAMPLES / "documents", TOKENIZER], Path()
    if recipe.start.kind != "scratch":
        folder = open_weights.fetch(recipe.start, DOWNLOADS)
        # only the files that are read: a folder may hold anything else, of any size, links included
        inputs += foreign.members(folder).values()

    def load(generator: torch.Generator, device: torch.device) -> GPT:
        if recipe.start.kind != "scratch":
            # a missing vocabulary is named where the recipe is built
            parts = Tokenizer.load(TOKENIZER).parts if TOKENIZER.exists() else {}
            return extension.extend(checkpoint.load(folder, str(device)), parts)
        vocabulary = Tokenizer.load(TOKENIZER).vocab_size
        config = ModelConfig(**recipe.model.model_dump(), vocab_size=vocabulary)
        return GPT(config, generator, recipe.start.zero_projections).to(device)

    return load, inputs


def finetune_start(recipe: Finetune) -> tuple[Load, list[Path]]:
    """Start of a fine-tune: another model of the graph."""

    def load(_: torch.Generator, device: torch.device) -> GPT:
        return checkpoint.load(MODELS / recipe.start, str(device))

    judge = Path(recipe.judge.settings("judges", "judge").reads)
    return load, [MODELS / recipe.start, MODELS / recipe.reference, judge, SAMPLES / recipe.data]
