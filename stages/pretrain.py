"""Stage pretrain: packed documents -> models/base, from fresh weights or from open ones."""

from pathlib import Path

import torch

from pipeline import config, foreign
from pipeline.config.recipe import Pretrain
from pipeline.model import checkpoint
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.paths import DOWNLOADS, TOKENIZER
from pipeline.tokenizer import Tokenizer
from pipeline.tracking import run as tracking
from pipeline.training.recipe import SAMPLES, Load, train
from stages import entry


def main() -> None:
    """Trains `pretrain` of params.yaml."""
    params = config.load()
    load, inputs = start(params.pretrain)
    with tracking.stage("pretrain", params) as run:
        train("base", "pretrain", params.pretrain, "documents", load, inputs, params, run, TOKENIZER)


def start(recipe: Pretrain) -> tuple[Load, list[Path]]:
    """How the recipe's model begins, and the files that decide what becomes of it."""
    inputs, folder = [SAMPLES / "documents", TOKENIZER], Path()
    if recipe.start.kind != "scratch":
        folder = checkpoint.fetch(recipe.start, DOWNLOADS)
        # what is read, no more: a folder may hold anything else, of any size, links included
        inputs += foreign.members(folder).values()

    def load(generator: torch.Generator, device: torch.device) -> GPT:
        if recipe.start.kind != "scratch":
            return checkpoint.load(folder, str(device))
        vocabulary = Tokenizer.load(TOKENIZER).vocab_size
        config = ModelConfig(**recipe.model.model_dump(), vocab_size=vocabulary)
        return GPT(config, generator, recipe.start.zero_projections).to(device)

    return load, inputs


if __name__ == "__main__":
    entry(main)
