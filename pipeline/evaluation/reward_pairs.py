"""Reward model on held-out pairs: accuracy against its noise ceiling, calibration, and whether it has learned length.

A pair is right where the chosen answer has the higher reward. Raters are noisy, so no model is right everywhere: where
the embedded world is the source, its hidden utility and stated noise give the probability p of every judgement, and
the ceiling is the mean of max(p, 1 - p), the expected accuracy of a judge who knows both (`ceiling`).

Calibration compares sigmoid(reward difference), the model's probability that the answer it prefers was chosen, with
the share in which it was (equally full bins; Nixon et al. 2019). A shortcut shows in `reward_length_share`: the share
of the model's preferences that one of two rules predicts, the longer or the shorter answer, whichever does better.
Beside it is the same share of the raters' choices. Length is in characters.

Shapes: N pairs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from pipeline.config.section import Positive, Section, Share
from pipeline.data.personal import mask
from pipeline.errors import UserError
from pipeline.evaluation import Measured, Subject, records, request_scores
from pipeline.outcomes import Outcomes
from pipeline.prompts.spec import REWARD
from pipeline.tasks import Request

_SHOWN = 20  # pairs in the details


class Ceiling(Section):
    """The judgements of the embedded world, as `download.sources.<world>.taste` states them."""

    noise: Share
    """Probability that a judgement by utility is flipped."""
    shortcut: Share
    """Share of pairs decided by length."""
    utility: Literal["taste", "null"]
    """null: judgements are coin flips."""


class Settings(Section):
    """Split, source, number of pairs, bins and ceiling."""

    split: Literal["validation", "test"] = Field(examples=["test"])
    """Split of the preferences to measure on."""
    source: str | None = Field(default=None, examples=[None])
    """Measure only on the records of this source of `download.sources`; null: all."""
    batch_size: Positive = Field(examples=[4])
    """Answers in a batch; their number does not change the metrics."""
    max_pairs: Positive | None = Field(default=None, examples=[None, 2])
    """Measure on the first so many pairs; null: all."""
    bins: Positive = Field(default=10, examples=[2])
    """Bins of the calibration, each with as many pairs."""
    ceiling: Ceiling | None = Field(default=None, examples=[None])
    """The stated noise of the world whose pairs these are; null: no ceiling is known."""


def measure(settings: Settings, subject: Subject) -> Measured:
    """reward_accuracy, reward_accuracy_error (standard error), reward_pairs (their number), reward_margin (mean
    difference), reward_loss_nats, reward_ece, reward_length_share and judged_length_share (of pairs of different
    length), reward_length_r2 (share of the variance of the differences that length explains); with a ceiling
    reward_ceiling and reward_ceiling_gap; details: bins of the calibration, accuracy by language, the most wrong pairs.

    Raises:
        UserError: a model that is no reward model, no pair, or a reward that is not finite.
    """
    task = subject.scoring("reward_pairs", REWARD)
    rows = records(subject, "preferences", settings.split, settings.source)[: settings.max_pairs]
    if not rows:
        raise UserError(f"data/samples/preferences/{settings.split}.parquet has no pairs; raise split.{settings.split}")
    asked = [_request(row, answer) for answer in ("chosen", "rejected") for row in rows]
    rewards = request_scores(subject, task, asked, settings.batch_size).double().numpy().reshape(2, -1)
    margins_N = rewards[0] - rewards[1]
    right_N = (margins_N > 0) + 0.5 * (margins_N == 0)
    losses_N = np.logaddexp(0.0, -margins_N)
    lengths_N = np.array([float(len(row["chosen"]) - len(row["rejected"])) for row in rows])
    table = bins_of(margins_N, settings.bins)
    accuracy = float(right_N.mean())
    metrics = {
        "reward_accuracy": accuracy,
        "reward_accuracy_error": math.sqrt(float(right_N.var()) / len(rows)),
        "reward_pairs": float(len(rows)),
        "reward_margin": float(margins_N.mean()),
        "reward_loss_nats": float(losses_N.mean()),
        "reward_ece": sum(row["pairs"] * abs(row["probability"] - row["share"]) for row in table) / len(rows),
        "reward_length_share": length_share(margins_N, lengths_N),
        "judged_length_share": length_share(np.ones(len(rows)), lengths_N),
        "reward_length_r2": length_r2(margins_N, lengths_N),
    }
    if settings.ceiling is not None:
        metrics["reward_ceiling"] = ceiling_of(settings.ceiling, rows)
        metrics["reward_ceiling_gap"] = metrics["reward_ceiling"] - accuracy
    languages = np.array([str(row["language"]) for row in rows])
    details = {
        "calibration": table,
        "accuracy_by_language": {code: float(right_N[languages == code].mean()) for code in sorted(set(languages))},
        "most_wrong": [
            _shown(rows[row], rewards[:, row]) for row in np.argsort(margins_N)[:_SHOWN] if right_N[row] < 1
        ],
    }
    outcomes = (
        Outcomes("reward_accuracy", rows, right_N.tolist()),
        Outcomes("reward_loss_nats", rows, losses_N.tolist()),
    )
    return Measured(metrics, details, outcomes)


def bins_of(margins_N: np.ndarray, bins: int) -> list[dict[str, float]]:
    """Pairs sorted by the model's probability of the answer it prefers, in bins of as equal a number as possible:
    pairs, mean probability, and the share in which that answer was chosen (half of it for equal rewards).
    """
    probability_N = 1 / (1 + np.exp(-np.abs(margins_N)))
    right_N = (margins_N > 0) + 0.5 * (margins_N == 0)
    parts = np.array_split(np.argsort(probability_N, kind="stable"), min(bins, len(margins_N)))
    return [
        {
            "pairs": float(len(part)),
            "probability": float(probability_N[part].mean()),
            "share": float(right_N[part].mean()),
        }
        for part in parts
    ]


def length_share(margins_N: np.ndarray, lengths_N: np.ndarray) -> float:
    """Share of the preferences, the signs of `margins_N`, that lengths predict by the longer or by the shorter answer,
    whichever does better; 0.5 where no pair differs in both.
    """
    told_N = (lengths_N != 0) & (margins_N != 0)
    if not told_N.any():
        return 0.5
    longer = float((np.sign(margins_N[told_N]) == np.sign(lengths_N[told_N])).mean())
    return max(longer, 1 - longer)


def length_r2(margins_N: np.ndarray, lengths_N: np.ndarray) -> float:
    """Squared correlation of both differences; about 0, since which answer of a pair is the first is arbitrary."""
    squares = float((margins_N**2).sum() * (lengths_N**2).sum())
    return float((margins_N * lengths_N).sum()) ** 2 / squares if squares else 0.0


def ceiling_of(ceiling: Ceiling, rows: Sequence[Mapping[str, Any]]) -> float:
    """Expected accuracy of a judge who knows the world's utility, its noise and the share of its shortcut."""
    from pipeline.data.sources.world import Taste, taste

    stated = Taste(requests=1, pairs=0, **ceiling.model_dump())
    chances = [
        taste.chance(row["instruction"], row["chosen"], row["rejected"], row["language"], stated) for row in rows
    ]
    return math.fsum(max(p, 1 - p) for p in chances) / len(chances)


def _request(row: Mapping[str, Any], answer: str) -> Request:
    asked = Request.of_record(row)
    return Request(asked.question, asked.input, asked.earlier, row[answer])


def _shown(row: Mapping[str, Any], rewards: np.ndarray) -> dict[str, Any]:
    texts = {key: mask(row[key])[:300] for key in ("instruction", "input", "chosen", "rejected")}
    return texts | {"reward_of_chosen": round(float(rewards[0]), 4), "reward_of_rejected": round(float(rewards[1]), 4)}
