"""Plan of a comparison: limits, batch sizes and updates by the data, and trainings by the time that they may take.

Every method gets two seeds. Learning rate, rank and epochs are chosen by the validation loss of trials with the first
seed, of as many as the budget has room for (`SEARCHES`); a method that has no room for two trainings is left out, with
the minutes that it would take. Times come from updates that were measured on this machine (`Speed`).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.config.recipe import Kind
from pipeline.studies.sizes import Sizes

METHODS = ("lora", "full")
"""Trained methods of the released model, the cheaper first."""
SEEDS = (1, 2)
EPOCHS = 4
"""Passes over the training records, within the bounds of `UPDATES`."""
UPDATES = (60, 240)
"""Fewest and most updates of a training."""
_FEWEST_UPDATES = 20
_BATCH = 16
_WIDTH = 384
"""Model width at which the rates are those below; others scale with 1 / width, as for Adam in Yang et al. 2021
(Tensor Programs V, table 3)."""
_RATES = {"lora": (3.0e-3, 8.0e-4), "full": (2.0e-4, 5.0e-5)}
_RANKS = (8, 2)
_FORWARD = 1 / 3
"""A forward pass as a share of an update."""
_VALIDATIONS = 5
_LONGEST = 512
_TEMPLATE = 48
"""Tokens that a template with its system message adds, at most."""
_GENERATED = 128
_MOST_ANSWERS = 100
"""Held-out instructions that are answered."""
_SHARES = {"lora": 0.5, "full": 0.85}
"""Share of the budget up to which a method may fill it; the rest is for the prompts."""
_STEP_OF_GENERATION = 4.0
"""A generated token costs as much as so many tokens of a prompt."""


class Limits(NamedTuple):
    """Sizes of examples and batches."""

    max_tokens: int
    max_prompt_tokens: int
    answer_tokens: int
    batch_size: int
    steps: int
    validation_batches: int
    records: int
    """Training records."""
    held_out: int
    """Test records that are scored."""


class Speed(NamedTuple):
    """Measured seconds of one process with one thread."""

    loading: float
    """Start of a process and its model."""
    forward_token: float
    """A token of a batch, without gradients."""
    lora: float | None
    """An update; None: the method cannot train this model."""
    full: float | None
    reasons: dict[str, str]
    """Method -> why it cannot train this model."""


@dataclass(frozen=True)
class Trials:
    """Trainings of one method."""

    settings: tuple[dict[str, Any], ...]
    """Rank and learning rate of each trial with the first seed."""
    steps: int
    seconds: float
    """Expected, of all trials and seeds, one after another."""


@dataclass(frozen=True)
class Plan:
    """Everything that is run on the released model."""

    limits: Limits
    trials: dict[str, Trials]
    """Method -> its trainings."""
    left_out: dict[str, str]
    """Method -> why it is not trained."""
    prompt_records: dict[int, int]
    """Examples in the prompt -> held-out records that are asked."""
    seconds: float
    """Expected on all lanes."""


def limits(kind: Kind, sizes: Sizes, context_length: int, around: int) -> Limits:
    """Limits by the sampled data.

    Args:
        kind: of the records.
        sizes: in tokens of the model's vocabulary.
        context_length: of the model.
        around: tokens that the vocabulary puts around a text.
    """
    n = sizes.records["train"]
    room = min(context_length, _LONGEST)
    batch = int(2 ** round(math.log2(max(2.0, min(_BATCH, n / 4)))))
    steps = min(UPDATES[1], max(UPDATES[0], math.ceil(EPOCHS * n / batch)))
    checked = min(20, max(1, -(-sizes.records["validation"] // batch)))
    test = sizes.records["test"]
    if kind == "labelled":
        longest = _eights(int(np.quantile(sizes.lengths, 0.99)) + around, 16, room)
        return Limits(longest, longest, 0, batch, steps, checked, n, test)
    answer = _eights(int(sizes.answers.max()), 8, min(_GENERATED, room // 2))
    longest = _eights(int(sizes.lengths.max()) + _TEMPLATE, 64, room)
    prompt = max(longest - int(sizes.answers.max()), longest // 2)
    return Limits(longest, prompt, answer, batch, steps, checked, n, min(test, _MOST_ANSWERS))


def _eights(value: int, low: int, high: int) -> int:
    return max(min(low, high), min(high, -(-value // 8) * 8))


def settings(method: str, width: int) -> tuple[dict[str, Any], ...]:
    """Ranks and learning rates that are tried, the likeliest first.

    Args:
        method: lora or full.
        width: d_model.
    """
    rates = [float(f"{rate * _WIDTH / width:.2g}") for rate in _RATES[method]]
    if method == "full":
        return tuple({"learning_rate": rate} for rate in rates)
    return tuple({"learning_rate": rate, "rank": rank} for rank in _RANKS for rate in rates)


def plan(  # noqa: PLR0913 - data, model, machine and budget
    limit: Limits, speed: Speed, sizes: Sizes, width: int, budget_s: float, lanes: int, words: int
) -> Plan:
    """The trainings and prompts that fit the budget.

    Args:
        limit: of the data.
        speed: of the model on this machine.
        sizes: of the records, in tokens.
        width: d_model.
        budget_s: seconds that trainings and prompts may take, in all.
        lanes: processes side by side.
        words: passes that a labelled text takes, one per label where a label has several tokens; 0: answers.
    """
    room, chosen, left_out, spent = budget_s * lanes, dict[str, Trials](), dict[str, str](), 0.0
    for method in METHODS:
        update = getattr(speed, method)
        if update is None:
            left_out[method] = speed.reasons.get(method, "cannot train this model")
            continue
        fitted = _fitted(settings(method, width), limit, update, speed.loading, _SHARES[method] * room - spent)
        if isinstance(fitted, float):
            left_out[method] = (
                f"over the budget: the shortest would take {_minutes(fitted / lanes)}, an update {update:.1f} s; "
                "--minutes raises the budget"
            )
            continue
        chosen[method], spent = fitted, spent + fitted.seconds
    records, prompts_s = _prompts(limit, speed, sizes, max(room - spent, 0.1 * room), words)
    return Plan(limit, chosen, left_out, records, (spent + prompts_s) / lanes)


def _fitted(
    grid: tuple[dict[str, Any], ...], limit: Limits, update: float, loading: float, room: float
) -> Trials | float:
    """The largest search that fits, or the seconds of the smallest."""
    searches = [(len(grid), 1.0), (2, 1.0), (2, 0.5), (1, 0.5), (1, 0.25)]
    seconds = math.inf
    for trials, share in searches:
        steps = max(_FEWEST_UPDATES, round(limit.steps * share))
        checked = _VALIDATIONS * limit.validation_batches + limit.held_out / limit.batch_size
        one = loading + update * (steps + _FORWARD * checked)
        seconds = one * (trials + len(SEEDS) - 1)
        if seconds <= room:
            return Trials(grid[:trials], steps, seconds)
    return seconds


def _prompts(limit: Limits, speed: Speed, sizes: Sizes, room: float, words: int) -> tuple[dict[int, int], float]:
    """Examples in the prompt -> records that are asked within the room, and the seconds of all."""
    if not speed.forward_token:
        return {}, 0.0
    usual = float(sizes.lengths.mean())
    records, spent = dict[int, int](), 0.0
    for shots in (0, 4, 8):
        # instruction and examples are computed once where they can be shared; a prompt is counted as a whole here
        each = (usual + 12) * words if words else (shots + 1) * usual + _STEP_OF_GENERATION * limit.answer_tokens
        most = int(room / 3 / (each * speed.forward_token))
        records[shots] = min(limit.held_out, most)
        spent += records[shots] * each * speed.forward_token
    return records, spent


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
