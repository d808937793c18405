"""Stage finetune@<recipe>: another model of the graph and one record kind -> models/<recipe>."""

import sys

from pipeline import config
from pipeline.model import checkpoint
from pipeline.paths import MODELS
from pipeline.tracking.stage import tracked_stage
from pipeline.training.recipe import train
from pipeline.training.start import finetune_start
from stages import entry


def main() -> None:
    """Trains the recipe named on the command line."""
    params = config.load()
    name = config.choice("recipe", sys.argv[1:], list(params.finetune))
    recipe = params.finetune[name]
    load, inputs = finetune_start(recipe)
    with tracked_stage(f"finetune@{name}", params) as run:
        train(
            name,
            f"finetune.{name}",
            recipe,
            recipe.data,
            load,
            inputs,
            params,
            run,
            MODELS / recipe.start,
            lambda: checkpoint.load(MODELS / recipe.reference),
        )


if __name__ == "__main__":
    entry(main)
