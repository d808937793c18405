"""Quality of a served model: evidence that its answers have become worse, beside the evidence that inputs have changed.

    accuracy   labels that arrive later, joined to requests by id, against the accuracy that was reviewed: it alone sees
               concept drift, where labels change at unchanged inputs
    thumbs     share of rated answers that people accept, against the first ratings of this model
    loss       of a text model on the texts of requests, against that on its reference: the quantity that it was trained
               to lower, which needs no label. A classifier's loss needs labels, and a change of its inputs or
               confidence alone may cost nothing

Each is a one-sided test for worse; the tests of a look share its level (Holm 1979).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipeline.data.language import exact_match
from pipeline.data.served import label_text
from pipeline.significance import wilson
from pipeline.watching import drift
from pipeline.watching.observations import Observation
from pipeline.watching.reference import Reference

FEWEST = 20
"""Labelled or rated requests that a test needs."""
_FIRST_RATINGS = 200
"""Ratings after the start of a model with which later ones are compared, at most."""
_LARGEST_RATER = 0.1
"""Share of a window's ratings that count of one rater, at most: one angry person is no drift."""
Name = Literal["accuracy", "thumbs", "loss"]


@dataclass(frozen=True)
class Judged:
    """A request whose answer was judged, by a label or by a rating."""

    time: str
    """Of the request."""
    right: bool
    rater: str = ""


@dataclass(frozen=True)
class Quality:
    """One measure of quality in a look."""

    name: Name
    count: int
    """Requests in the window."""
    value: float
    """Share, or mean loss in nats a token."""
    low: float
    """95 % interval of the value."""
    high: float
    reference: float
    reference_low: float
    reference_high: float
    reference_count: int
    p_value: float
    """One-sided: of a value this much worse, were there no change."""
    worse: bool = False
    """Whether the value is significantly worse, after Holm's correction."""


@dataclass(frozen=True)
class Missing:
    """A measure of quality without enough evidence."""

    name: Name
    count: int
    """Requests with evidence."""
    needed: int
    """0: it can't be measured of this model."""


def labelled(
    observations: Sequence[Observation],
    labels: Mapping[str, str],
    answers: Mapping[str, tuple[str, str]],
) -> list[Judged]:
    """The observed requests whose label is known, in the order of their times.

    Args:
        observations: of one model.
        labels: request -> label; of a text model the right answer.
        answers: request -> answer and language, of consented requests to a text model.
    """
    judged = []
    for observation in sorted(observations, key=lambda one: one.time):
        label = labels.get(observation.request)
        if label is None:
            continue
        if observation.label is not None:
            judged.append(Judged(observation.time, label_text(label) == observation.label))
        elif observation.request in answers:
            text, language = answers[observation.request]
            judged.append(Judged(observation.time, exact_match(text, label, language)))
    return judged


def rated(observations: Sequence[Observation], ratings: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """The observed requests that were rated, one a rater and request, in the order of the ratings' times.

    A thumb up accepts the answer; a thumb down or a correction does not. A choice between two drafts says nothing of
    either alone.

    Args:
        observations: of one model.
        ratings: the valid ones (pipeline/data/journal.py, `standing`).
    """
    known = {observation.request for observation in observations if observation.request}
    judged: dict[tuple[str, str], Judged] = {}
    for rating in sorted(ratings, key=lambda one: str(one.get("time", ""))):
        if rating.get("request") not in known or rating.get("form") not in ("thumb", "correction"):
            continue
        key = (str(rating.get("rater", "")), str(rating["request"]))
        up = rating["form"] == "thumb" and rating.get("value") in ("up", 1)
        before = judged.get(key)
        judged[key] = Judged(str(rating.get("time", "")), up and (before is None or before.right), key[0])
    return list(judged.values())


def of_labels(judged: Sequence[Judged], reference: Reference, window: int) -> Quality | Missing:
    """Accuracy of the newest `window` labelled requests beside the reviewed one."""
    if not reference.judged or reference.right is None:
        return Missing("accuracy", len(judged), 0)
    if len(judged) < FEWEST:
        return Missing("accuracy", len(judged), FEWEST)
    return _shares("accuracy", judged[-window:], (reference.right, reference.judged))


def of_ratings(judged: Sequence[Judged], window: int) -> Quality | Missing:
    """Share of accepted answers among the newest ratings beside that of the first ones of this model."""
    first = min(_FIRST_RATINGS, len(judged) // 2)
    before, after = _capped(judged[:first]), _capped(judged[first:][-window:])
    if min(len(before), len(after)) < FEWEST:
        return Missing("thumbs", len(judged), 2 * FEWEST)
    return _shares("thumbs", after, (sum(one.right for one in before), len(before)))


def of_loss(
    window: Sequence[Observation], reference: Reference, level: float, generator: np.random.Generator
) -> Quality | Missing:
    """Loss of a text model on the texts of a window beside the reference, by ranks; of those that have a loss.

    `level`: smallest p-value to resolve.
    """
    compared = drift.rise(reference.observations, window, level, generator, "nats_per_token")
    if not compared.statistics:
        return Missing("loss", sum(one.nats_per_token is not None for one in window), drift.FEWEST)
    (statistic,) = compared.statistics
    new, old = (
        np.array([one.nats_per_token for one in part if one.nats_per_token is not None])
        for part in (window, reference.observations)
    )
    bounds = [(float(part.mean()), 1.96 * float(part.std()) / len(part) ** 0.5) for part in (new, old)]
    (mean, half), (reference_mean, reference_half) = bounds
    return Quality(
        "loss", len(new), mean, mean - half, mean + half, reference_mean, reference_mean - reference_half,
        reference_mean + reference_half, len(old), statistic.p_value,
    )  # fmt: skip


def decided(measures: Sequence[Quality], level: float) -> list[Quality]:
    """The measures with `worse`: the smallest p-value against level / n, the next against level / (n - 1) (Holm)."""
    order = sorted(range(len(measures)), key=lambda i: measures[i].p_value)
    marked, holds = list(measures), True
    for rank, i in enumerate(order):
        holds = holds and measures[i].p_value <= level / (len(order) - rank)
        marked[i] = replace(measures[i], worse=holds)
    return marked


def fewer_right(right: int, judged: int, reference: tuple[int, int]) -> float:
    """One-sided p-value of Fisher's exact test, alternative: the share right is lower than in the reference.

    The chance of at most `right` in the window, were the right answers of both dealt at random (hypergeometric).

    Args:
        right: right answers of the window.
        judged: answers of the window.
        reference: the same two numbers of the reference.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(right, judged + reference[1], right + reference[0], judged))


def _shares(name: Name, judged: Sequence[Judged], reference: tuple[int, int]) -> Quality:
    right, count = sum(one.right for one in judged), len(judged)
    share, before = right / count, reference[0] / reference[1]
    return Quality(
        name, count, share, *wilson(share, count), before, *wilson(before, reference[1]), reference[1],
        fewer_right(right, count, reference),
    )  # fmt: skip


def _capped(judged: Sequence[Judged]) -> list[Judged]:
    """The newest ratings of each rater, at most a tenth of all and at least three."""
    most = max(3, int(_LARGEST_RATER * len(judged)))
    counts: Counter[str] = Counter()
    kept = []
    for one in reversed(judged):
        counts[one.rater] += 1
        if not one.rater or counts[one.rater] <= most:
            kept.append(one)
    return kept[::-1]
