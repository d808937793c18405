"""The base model of task `unchanged`: open weights, copied as they are."""

from pathlib import Path

import torch

from pipeline import files, foreign, integrity
from pipeline.config.params import Params
from pipeline.model import checkpoint, open_weights
from pipeline.model.device import set_up
from pipeline.paths import DOWNLOADS, MODELS, SAMPLES, TOKENIZER, TRAINING
from pipeline.prompts import spec as specs
from pipeline.prompts.spec import TaskSpec
from pipeline.tokenizer import Tokenizer
from pipeline.training.build import Load, require_usable
from pipeline.training.kept import write_none
from pipeline.training.recipe import TrainingTracker

CURVE = "step,train_loss_nats,validation_loss_nats\n"


def copy_start(load: Load, params: Params, run: TrainingTracker) -> None:
    """Writes models/base, models/base.states (none), reports/training/base.json and .csv (a curve without points).

    Args:
        load: gives the start model.
        params: of the graph.
        run: the tracker.

    Raises:
        UserError: open weights that cannot be read, or that do not fit the tokenizer.
    """
    with run.work():
        integrity.require_admitted("samples", "documents", SAMPLES.parent)
        integrity.require_intact(TOKENIZER)
        device = set_up(params.compute)
        model = load(torch.Generator().manual_seed(params.pretrain.seed), device)
        require_usable("pretrain", model, Tokenizer.load(TOKENIZER))
        task = TaskSpec(name="unchanged").within(model.room())
        folder = MODELS / "base"

        def write_origin(place: Path) -> None:
            origin = open_weights.origin(params.pretrain.start, model, DOWNLOADS)
            if origin is not None:
                files.write_json(place / foreign.ORIGIN, origin.model_dump())

        labels = None
        if model.score is not None:  # a released classifier
            labels = checkpoint.labels(open_weights.fetch(params.pretrain.start, DOWNLOADS))
        content = specs.written([task])
        checkpoint.save(model, folder, tokenizer=TOKENIZER, labels=labels, metadata=content, more=write_origin)
        summary = {"steps": 0, "parameters": model.num_parameters(), "trainable_parameters": 0, "trainable_share": 0.0}
        write_none("base")
        curve = TRAINING / "base.csv"
        files.write_text(curve, CURVE)
        files.write_json(TRAINING / "base.json", summary)
        integrity.write_json(TRAINING / "base.hashes.json", {}, beside=[TRAINING / "base.json", curve])
        print(f"base: {params.pretrain.start.path} as it is, {model.num_parameters():,} weights; nothing was trained")
        run.artifact(curve)
        run.model(folder, dict(summary))
