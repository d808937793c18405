"""Learning-rate schedule (warm-up, then one of four shapes) and batch-size warm-up.

Sources: cosine, Loshchilov & Hutter 2017 (SGDR, eq. 5, one cycle); trapezoid, Zhai et al. 2022 (section 3.5), with the
last fifth of the steps as cooldown (Hägele et al. 2024, section 3).
"""

import itertools
import math
from functools import cache

from pipeline.config.recipe import Schedule

COOLDOWN = 0.2
"""Share of the steps in a trapezoid's cooldown (Hägele et al. 2024, figure 5: 20 % is enough)."""


def learning_rate_factor(schedule: Schedule, step: int) -> float:
    """Learning rate of update `step` (from 0) as a share of the peak, in (0, 1]."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    after = max(1, schedule.updates - schedule.warmup_steps)
    progress = min(1.0, (step - schedule.warmup_steps + 1) / after)
    floor = schedule.final_share
    match schedule.shape:
        case "constant":
            return 1.0
        case "linear":
            return floor + (1 - floor) * (1 - progress)
        case "trapezoid":
            return floor + (1 - floor) * min(1.0, (1 - progress) / COOLDOWN)
        case "cosine":
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def resolved(schedule: Schedule, n_examples: int, batch_size: int) -> Schedule:
    """The schedule in updates: of epochs, the fewest updates whose examples are at least so many passes over all.

    Args:
        schedule: in steps or epochs.
        n_examples: of the training split, at least 1.
        batch_size: examples of a micro-batch.
    """
    if schedule.epochs is None:
        return schedule
    wanted = math.ceil(schedule.epochs * n_examples / batch_size - 1e-9)  # micro-batches
    grown = _cumulative(schedule.accumulate, schedule.batch_warmup_steps)
    if grown[-1] >= wanted:
        steps = next(step for step, done in enumerate(grown) if done >= wanted)
    else:
        steps = len(grown) - 1 + math.ceil((wanted - grown[-1]) / schedule.accumulate)
    return schedule.model_copy(update={"steps": max(1, steps), "epochs": None})


def micro_batches(schedule: Schedule, step: int) -> range:
    """Numbers of the micro-batches of update `step` (from 0); consecutive updates have consecutive numbers."""
    return range(_before(schedule, step), _before(schedule, step + 1))


def _before(schedule: Schedule, step: int) -> int:
    """Micro-batches in the first `step` updates; update s of a warm-up over w updates has ceil(s n / w) of n."""
    warmup = min(step, schedule.batch_warmup_steps)
    done = _cumulative(schedule.accumulate, schedule.batch_warmup_steps)[warmup]
    return done + (step - warmup) * schedule.accumulate


@cache
def _cumulative(accumulate: int, steps: int) -> list[int]:
    """Micro-batches in the first 0, 1, ... `steps` updates of a warm-up."""
    return [0, *itertools.accumulate(-(-s * accumulate // steps) for s in range(1, steps + 1))]
