"""Stage finetune@<recipe>: another model of the graph and one record kind -> models/<recipe>."""

import sys

from pipeline import config
from pipeline.model import checkpoint
from pipeline.tracking import run as tracking
from pipeline.training.recipe import MODELS, SAMPLES, train
from stages import entry


def main() -> None:
    """Trains the recipe named on the command line."""
    params = config.load()
    name = config.choice("recipe", sys.argv[1:], list(params.finetune))
    recipe = params.finetune[name]
    start, reference = MODELS / recipe.start, MODELS / recipe.reference
    with tracking.stage(f"finetune@{name}", params) as run:
        train(
            name,
            f"finetune.{name}",
            recipe,
            recipe.data,
            lambda generator, device: checkpoint.load(start, str(device)),
            [start, reference, SAMPLES / recipe.data],
            params,
            run,
            start,
            lambda: checkpoint.load(reference),
        )


if __name__ == "__main__":
    entry(main)
