"""Which method to take for a user's data, beside the simple ones, and when not to fine-tune at all.

The simple methods train no network: the most frequent label, TF-IDF with logistic regression, nearest neighbours on
embeddings, prompts without and with examples. A trained method *beats* them where it is better than each of them: an
intersection-union test (Berger 1982), so that the number of simple methods needs no correction, and the number of
trained ones gets Bonferroni's. For methods that are in truth no better than the best simple one, a comparison says
"fine-tune" in at most 5 % of repetitions; tests/reporting/test_recommendation.py repeats it.

Without a winner the sentence is not to fine-tune, with the reason: the trained ones are no better, or so few records
cannot tell, and then how many would.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.significance import ERROR_RATE, Scores, SeedVariance, Verdict, compare, standard_error, wilson

SIMPLE = ("majority", "TF-IDF", "neighbours", "zero-shot", "4-shot", "8-shot")
"""Names of the methods that train no network, the cheapest first."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One method of a comparison."""

    name: str
    values: tuple[float, ...] = ()
    """Score of each seed, 0 to 1; empty: not measured."""
    by_record: tuple[float, ...] = ()
    """Score of each held-out record, the mean over the seeds."""
    seconds: float = 0.0
    """Measured, of one seed: training and held-out records, of one process with one thread."""
    peak_memory_mib: float = 0.0
    trained: int = 0
    """Trained weights of a network."""
    missing: str = ""
    """Why it was not measured; empty: it was."""
    note: str = ""
    """Settings, and what the reader should know."""
    seedless: bool = False
    """Whether it has no random part."""

    @property
    def simple(self) -> bool:
        """Whether it trains no network."""
        return self.name in SIMPLE

    @property
    def mean(self) -> float:
        """Mean over seeds and records."""
        return sum(self.values) / len(self.values)

    @property
    def scores(self) -> Scores:
        """For the tests of significance."""
        return Scores(self.values, len(self.by_record), self.by_record, self.seedless)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval over the records: Wilson's of a share, else a bootstrap's (Efron 1979)."""
        if set(np.unique(self.by_record)) <= {0.0, 0.5, 1.0}:
            return wilson(self.mean, len(self.by_record))
        generator = np.random.default_rng(1)
        scores = np.array(self.by_record)
        means = scores[generator.integers(len(scores), size=(_RESAMPLES, len(scores)))].mean(1)
        low, high = np.quantile(means, [ERROR_RATE / 2, 1 - ERROR_RATE / 2])
        return float(low), float(high)


@dataclass(frozen=True)
class Recommendation:
    """The verdicts and the sentence that a comparison ends with."""

    take: str
    """Name of the method to take; empty where nothing was measured."""
    fine_tune: bool
    sentence: str
    verdicts: dict[str, Verdict]
    """Trained method -> better than every simple one, worse than the best of them, or cannot tell."""


def recommend(rows: Sequence[Row], score: str) -> Recommendation:
    """The recommendation for the rows of a comparison.

    Args:
        rows: of methods on the same held-out records.
        score: its name, for the sentence.
    """
    measured = [row for row in rows if row.values]
    simple, trained = [row for row in measured if row.simple], [row for row in measured if not row.simple]
    if not measured:
        return Recommendation("", False, "No method was measured.", {})
    seeds = SeedVariance.pooled([row.scores for row in measured])
    verdicts = {row.name: _beside(row, simple, seeds, len(trained)) for row in trained}
    winners = [row for row in trained if verdicts[row.name] == "better"]
    if winners or not simple:
        chosen = _cheapest(winners or trained, seeds)
        return Recommendation(chosen.name, True, _take(chosen, winners or trained, simple, score), verdicts)
    chosen = _cheapest(simple, seeds)
    return Recommendation(chosen.name, False, _leave(chosen, trained, simple, seeds, score), verdicts)


def _beside(row: Row, simple: Sequence[Row], seeds: SeedVariance, trained: int) -> Verdict:
    verdicts = {compare(row.scores, other.scores, seeds, trained) for other in simple}
    if verdicts <= {"better"}:
        return "better"
    # the best simple one is known only afterwards, so all pairs count
    worse = any(compare(row.scores, other.scores, seeds, trained * len(simple)) == "worse" for other in simple)
    return "worse" if worse else "cannot tell"


def _cheapest(rows: Sequence[Row], seeds: SeedVariance) -> Row:
    """The cheapest row within one standard error of the best (Breiman et al. 1984, section 3.4.3)."""
    best = max(rows, key=lambda row: row.mean)
    near = [row for row in rows if best.mean - row.mean <= standard_error(best.scores, row.scores, seeds)]
    near = [row for row in near if row.name != "majority"] or near  # a constant is no classifier
    order = {name: place for place, name in enumerate(SIMPLE)}
    return min(near, key=lambda row: (row.trained, order.get(row.name, 0), -row.mean))


def _take(chosen: Row, winners: Sequence[Row], simple: Sequence[Row], score: str) -> str:
    best = max(winners, key=lambda row: row.mean)
    cost = f"{chosen.trained:,} trained weights, {chosen.seconds:.0f} s a seed"
    cost += f"; {chosen.note}" if chosen.note else ""
    others = [row.name for row in winners if row is not chosen]
    near = f", the cheapest within one standard error of {best.name} ({best.mean:.3f})" if best is not chosen else ""
    also = f" (so {'are' if len(others) > 1 else 'is'} {' and '.join(others)})" if others and not near else ""
    text = f"Fine-tune: take {chosen.name}{near}, {score} {chosen.mean:.3f} on {_records(chosen)} ({cost})"
    if not simple:
        return f"{text}; no simple method was measured to compare with."
    beside = max(simple, key=lambda row: row.mean)
    return (
        f"{text}; it is better than every method without training{also}, of which {beside.name} is best "
        f"({beside.mean:.3f})."
    )


def _leave(chosen: Row, trained: Sequence[Row], simple: Sequence[Row], seeds: SeedVariance, score: str) -> str:
    best = max(simple, key=lambda row: row.mean)
    near = "" if chosen is best else f", the cheapest within one standard error of {best.name} ({best.mean:.3f})"
    take = f"take {chosen.name}{near}, {score} {chosen.mean:.3f} on {_records(chosen)}"
    if not trained:
        return f"Do not fine-tune: no method could be trained here; {take}."
    top = max(trained, key=lambda row: row.mean)
    if top.mean <= best.mean:
        return f"Do not fine-tune: {take}; the best trained method, {top.name}, is at {top.mean:.3f}."
    needed = _records_to_tell(top, best, seeds, len(trained))
    return (
        f"Do not fine-tune yet: {top.name} is at {top.mean:.3f} and {best.name} at {best.mean:.3f}, and "
        f"{_records(top)} cannot tell that from chance (about {needed:,} could); {take}, or label more records."
    )


def _records_to_tell(top: Row, best: Row, seeds: SeedVariance, comparisons: int) -> int:
    """Held-out records, about, on which this difference would be found, were it the true one; to two digits."""
    from statistics import NormalDist

    error = standard_error(top.scores, best.scores, seeds)
    quantile = NormalDist().inv_cdf(1 - ERROR_RATE / 2 / comparisons) + NormalDist().inv_cdf(0.8)
    needed = len(top.by_record) * (quantile * error / (top.mean - best.mean)) ** 2
    digits = int(10 ** max(0, math.floor(math.log10(max(needed, 1))) - 1))
    return max(len(top.by_record) + 1, math.ceil(needed / digits) * digits)


def _records(row: Row) -> str:
    return f"{len(row.by_record):,} held-out records"
