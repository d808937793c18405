"""Forecast of what rollouts add to a training: further models, the cache of drawn answers, and the time of drawing."""

import time

from pipeline.config import plugins
from pipeline.config.recipe import AXES, Compute, Finetune, Recipe
from pipeline.contracts import Batch
from pipeline.model.gpt import GPT
from pipeline.training import footprint
from pipeline.training.forecast_batches import declared, rollouts_of

_WARM_UP, _TIMED = 1, 3


def beside(recipe: Recipe, batches: list[Batch]) -> footprint.Beside:
    """Models that the loss needs, and the cache in which a block's answers are drawn."""
    roles = declared(recipe, "loss", "roles")
    judge = isinstance(recipe, Finetune) and recipe.judge.name == "reward_model"
    longest = max((batch["inputs"].shape[1] for batch in batches), default=0) + 1
    return footprint.Beside(
        ("reference" in roles) + judge,
        int(declared(recipe, "loss", "trains_model") or 0),
        rollouts_of(recipe) * longest,
    )


def token_seconds(recipe: Recipe, model: GPT, compute: Compute, longest: int) -> float:
    """Seconds of a token of every answer of a block, at the longest positions; 0 with records."""
    if not (rows := rollouts_of(recipe)):
        return 0.0
    model.eval()
    # by name: an import would make every training stale when the decoding engine is edited
    steps = plugins.load(AXES["experience"], recipe.experience.name).steps(
        model, compute, rows, longest, _WARM_UP + _TIMED
    )
    times, began = [], clocks(compute)
    for _ in steps:
        ended = clocks(compute)
        times.append(between(began, ended))
        began = ended
    return min(times[_WARM_UP:])


def seconds(recipe: Recipe, size: int, token: float, forward: float) -> float:
    """Seconds of all blocks and of the answers of validations, as if no answer ended early; 0 with records.

    Args:
        recipe: its schedule is in steps.
        size: examples of a micro-batch.
        token: seconds of a token of all answers of a block.
        forward: seconds of a pass over a micro-batch without gradients.
    """
    if not (rows := rollouts_of(recipe)):
        return 0.0
    settings, steps, validation = recipe.experience.model_dump(), recipe.schedule.updates, recipe.validation
    blocks, validations = -(-steps // settings["updates"]), -(-steps // validation.every)
    drawn = settings["max_tokens"] * token * (blocks + validations * validation.batches * size / rows)
    others = beside(recipe, [])  # each passes over a block
    return float(drawn + (others.frozen + others.trained) * blocks * rows / size * forward)


def clocks(compute: Compute) -> tuple[float, ...]:
    """Seconds by the wall clock and, on a CPU, of this process on all of its cores."""
    return (time.perf_counter(),) if compute.device == "cuda" else (time.perf_counter(), time.process_time())


def between(began: tuple[float, ...], ended: tuple[float, ...]) -> float:
    """Seconds between two readings: by the clock that says fewer. A wait for a core is no time of the process, and on a
    machine without neighbours its threads together take no less than the wall clock says.
    """
    return min(b - a for a, b in zip(began, ended, strict=True))
