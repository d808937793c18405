"""Stage pretrain: packed documents -> models/base, from fresh weights or from open ones."""

from pipeline import config
from pipeline.paths import TOKENIZER
from pipeline.tracking.stage import tracked_stage
from pipeline.training.recipe import train
from pipeline.training.start import start
from pipeline.training.unchanged import copy_start
from stages import entry


def main() -> None:
    """Trains `pretrain` of params.yaml."""
    params = config.load()
    load, inputs = start(params.pretrain)
    with tracked_stage("pretrain", params) as run:
        if params.pretrain.task.name == "unchanged":
            copy_start(load, params, run)
            return
        train("base", "pretrain", params.pretrain, "documents", load, inputs, params, run, TOKENIZER)


if __name__ == "__main__":
    entry(main)
