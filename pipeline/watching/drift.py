"""Drift of a window of observations against a reference: one permutation test of all statistics at once.

Each statistic is a mean over observations: of ranks and of their distance from the middle rank (shifts of location and
of spread: the Wilcoxon and the Ansari-Bradley statistic, Hollander, Wolfe, Chicken 2014, chapters 4 and 5), or of the
indicator of a category. Were the window drawn like the reference, any division of all observations into two parts of
these sizes would be as likely; the test compares the largest standardised difference with its distribution over random
divisions (the maximum of Westfall & Young 1993, "Resampling-Based Multiple Testing", 2.3). It holds its level for
any distribution and any dependence between statistics, unlike the population stability index and separate tests. The
random divisions end early where the result is clear (Besag & Clifford 1991, "Sequential Monte Carlo p-values").

Requests of one person or one program in a row are not independent; many of them in one window can look like drift,
and are one in the requests that the model gets.

Shapes: N observations, reference and window; C columns; B random divisions.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from pipeline.watching.observations import Observation

Floats = npt.NDArray[np.float64]

NUMBERS = (
    "characters", "words", "fertility", "unknown_words", "confidence", "value", "answer_tokens", "answer_nats",
    "distance", "nats_per_token",
)  # fmt: skip
CATEGORIES = ("language", "label")
FEWEST = 30
"""Observations with a value that reference and window each need for a statistic."""
_FEWEST_OF_CATEGORY = 10  # in both together: the indicator of a rarer category is far from normal
_MOST_CATEGORIES = 20
_EXCEEDED = 10  # draws at least as extreme, after which the p-value is known well enough
_DRAWS_AT_LEVEL = 10  # expected number of draws beyond the level: more make its decision no clearer
_MOST_DRAWS = 200_000
_BATCH = 100


@dataclass(frozen=True)
class Statistic:
    """A statistic of the window beside the reference."""

    name: str
    """Of the field of Observation."""
    category: str | None
    """Whose share it is; None: the mean of a number."""
    reference: float
    """Mean or share in the reference."""
    window: float
    """Mean or share in the window."""
    low: float
    """Bounds between which the window's mean is expected without drift: approximately, for pictures."""
    high: float
    observations: int
    """Of the window, with a value."""
    p_value: float
    """Adjusted for all statistics of the test."""
    drifted: bool
    """Whether the p-value is at most the level."""


@dataclass(frozen=True)
class _Column:
    name: str
    category: str | None
    values_N: Floats
    present_N: npt.NDArray[np.bool_]
    scores: tuple[Floats, ...]
    """What the test sums, over the present observations; each of length N with zeros where there is no value."""


@dataclass(frozen=True)
class Comparison:
    """The result of one test."""

    statistics: tuple[Statistic, ...]
    p_value: float
    """Of all statistics together; 1 without any."""
    level: float

    @property
    def drifted(self) -> bool:
        """Whether the window differs from the reference."""
        return self.p_value <= self.level


def compare(
    reference: Sequence[Observation],
    window: Sequence[Observation],
    level: float,
    generator: np.random.Generator,
    names: Sequence[str] = (*NUMBERS, *CATEGORIES),
) -> Comparison:
    """Tests whether a window was drawn like the reference.

    Args:
        reference: observations of the reference.
        window: later observations, none of them in the reference.
        level: largest p-value that counts as drift.
        generator: of the random divisions.
        names: fields of Observation to compare; a field needs FEWEST values in either part.
    """
    sizes = len(reference), len(window)
    return _tested(_columns(reference, window, names), sizes, level, generator)


def rise(
    reference: Sequence[Observation],
    window: Sequence[Observation],
    level: float,
    generator: np.random.Generator,
    name: str,
) -> Comparison:
    """Tests whether a number is larger in a window than in the reference; arguments as of `compare`."""
    sizes = len(reference), len(window)
    columns = [replace(column, scores=column.scores[:1]) for column in _columns(reference, window, [name])]
    return _tested(columns, sizes, level, generator, signed=True)


def _tested(
    columns: Sequence[_Column],
    sizes: tuple[int, int],
    level: float,
    generator: np.random.Generator,
    signed: bool = False,
) -> Comparison:
    """The permutation test; `signed`: only sums above their mean count."""
    if not columns:
        return Comparison((), 1.0, level)
    observed = [_standardised(column, sizes) for column in columns]
    extremes = [max((z if signed else abs(z)) for z in scores) for scores in observed]
    exceeded_C, beyond, draws = np.zeros(len(columns)), 0, 0
    most = min(_MOST_DRAWS, math.ceil(_DRAWS_AT_LEVEL / level))
    divisions = _Divisions(columns, sizes, signed)
    while draws < most and beyond < _EXCEEDED:
        largest_B = divisions.draw(min(_BATCH, most - draws), generator)
        exceeded_C += (largest_B[:, None] >= np.array(extremes)[None, :] - 1e-9).sum(0)
        beyond = int(exceeded_C[int(np.argmax(extremes))])
        draws += len(largest_B)
    p_values = [float((1 + count) / (1 + draws)) for count in exceeded_C]
    cut = NormalDist().inv_cdf(1 - level / 2 / len(columns))
    described = (_described(column, sizes[0], (p, level), cut) for column, p in zip(columns, p_values, strict=True))
    return Comparison(tuple(described), min(p_values), level)


class _Divisions:
    """Random divisions of the observations, and the largest standardised difference in each."""

    def __init__(self, columns: Sequence[_Column], sizes: tuple[int, int], signed: bool) -> None:
        self._n, self._signed = sum(sizes), signed
        patterns: dict[bytes, list[_Column]] = {}
        for column in columns:
            patterns.setdefault(column.present_N.tobytes(), []).append(column)
        self._parts = []
        for alike in patterns.values():
            present_N = alike[0].present_N
            chosen = int(present_N[sizes[0] :].sum())
            scores_NC = np.stack([scores for column in alike for scores in column.scores], 1)
            error_C = np.array([_error(column, scores, chosen) for column in alike for scores in column.scores])
            self._parts.append((present_N, chosen, scores_NC / error_C))

    def draw(self, count: int, generator: np.random.Generator) -> Floats:
        """largest_B of `count` divisions. Observations without a value are left out of each column's division."""
        keys_BN = generator.random((count, self._n))
        largest_B = np.full(count, -np.inf)
        for present_N, chosen, scores_NC in self._parts:
            own_BN = keys_BN if present_N.all() else np.where(present_N, keys_BN, 2.0)
            limit_B = np.partition(own_BN, chosen - 1, axis=1)[:, chosen - 1]
            sums_BC = (own_BN <= limit_B[:, None]).astype(np.float64) @ scores_NC
            extreme_BC = sums_BC if self._signed else np.abs(sums_BC)
            largest_B = np.maximum(largest_B, extreme_BC.max(1))
        return largest_B


def _columns(reference: Sequence[Observation], window: Sequence[Observation], names: Sequence[str]) -> list[_Column]:
    columns = []
    for name in names:
        values = [getattr(observation, name) for observation in (*reference, *window)]
        present_N = np.array([value is not None for value in values])
        if min(present_N[: len(reference)].sum(), present_N[len(reference) :].sum()) < FEWEST:
            continue
        if name in CATEGORIES:
            columns += _shares(name, values, present_N)
        else:
            columns += _number(name, values, present_N)
    return columns


def _shares(name: str, values: Sequence[str | None], present_N: npt.NDArray[np.bool_]) -> list[_Column]:
    """A column of indicators for each frequent category."""
    counts = Counter(value for value in values if value is not None)
    total = sum(counts.values())
    columns = []
    for category, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CATEGORIES]:
        if min(count, total - count) >= _FEWEST_OF_CATEGORY:
            values_N = np.array([value == category for value in values], np.float64)
            columns.append(_Column(name, category, values_N, present_N, (_centred(values_N, present_N),)))
    # of two categories, the share of the second says nothing more
    return columns[:1] if len(counts) == 2 else columns


def _number(name: str, values: Sequence[float | None], present_N: npt.NDArray[np.bool_]) -> list[_Column]:
    """A column of ranks, and of their distances from the middle; none for a number that does not vary."""
    values_N = np.array([0.0 if value is None else value for value in values], np.float64)
    ranks = midranks(values_N[present_N])
    if ranks.min() == ranks.max():
        return []
    placed = []
    for of_present in (ranks, np.abs(ranks - (len(ranks) + 1) / 2)):
        scores_N = np.zeros(len(values_N))
        scores_N[present_N] = of_present
        centred_N = _centred(scores_N, present_N)
        if np.abs(centred_N).max() > 1e-9:
            placed.append(centred_N)
    return [_Column(name, None, values_N, present_N, tuple(placed))]


def midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values have the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Floats = (ends - (counts - 1) / 2)[places]
    return ranks


def _centred(scores_N: Floats, present_N: npt.NDArray[np.bool_]) -> Floats:
    """Scores less their mean over the present observations; 0 elsewhere."""
    centred_N: Floats = np.where(present_N, scores_N - scores_N[present_N].mean(), 0.0)
    return centred_N


def _error(column: _Column, scores_N: Floats, chosen: int) -> float:
    """Standard deviation of the sum over `chosen` of the present observations, drawn without replacement."""
    n = int(column.present_N.sum())
    variance = float((scores_N**2).sum()) / (n - 1)
    return math.sqrt(chosen * (1 - chosen / n) * variance)


def _standardised(column: _Column, sizes: tuple[int, int]) -> list[float]:
    """The sums over the window in units of their standard deviation."""
    chosen = int(column.present_N[sizes[0] :].sum())
    return [float(scores[sizes[0] :].sum()) / _error(column, scores, chosen) for scores in column.scores]


def _described(column: _Column, split: int, decided: tuple[float, float], cut: float) -> Statistic:
    """The statistic for people: means, and the bounds of the window's mean at `cut` standard errors.

    Args:
        column: of reference and window.
        split: size of the reference.
        decided: p-value and level.
        cut: half width of the bounds.
    """
    p_value, level = decided
    before = column.values_N[:split][column.present_N[:split]]
    after = column.values_N[split:][column.present_N[split:]]
    deviation = float(np.std(before))
    if column.category is not None:  # a share of 0 or 1 in the reference is not known to be one
        share = (before.sum() + 1) / (len(before) + 2)
        deviation = math.sqrt(share * (1 - share))
    half = cut * deviation * math.sqrt(1 / len(before) + 1 / len(after))
    mean = float(before.mean())
    return Statistic(
        column.name, column.category, mean, float(after.mean()), mean - half, mean + half, len(after), p_value,
        p_value <= level,
    )  # fmt: skip
