"""Advice on fine-tuning methods: which to take, that it cannot be told, or not to fine-tune.

Methods are compared with the baseline and with the best one by `pipeline.significance.compare`: over seeds and
held-out records, 5 % false findings over all comparisons of a question. Of the methods that cannot be told from the
best the cheapest, with the fewest trained weights, is advised, if its mean is within one standard error of the best
(Breiman, Friedman, Olshen, Stone 1984, section 3.4.3): a large difference that few records and seeds cannot prove is
no equality.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.reporting.methods import Method
from pipeline.reporting.wording import Words, load
from pipeline.significance import ERROR_RATE, Scores, SeedVariance, Verdict, compare, standard_error


class Advice(NamedTuple):
    """Advice in words."""

    reasons: str
    """Its basis: records, seeds, epochs, forgetting."""
    sentence: str
    """Which method to take, or that none can be told apart, or not to fine-tune."""


class Comparison(NamedTuple):
    """The methods beside the baseline and beside the best of them."""

    best: Method
    """The best by mean, of the methods that beat the baseline if any does."""
    beside_best: dict[str, Verdict]
    """Verdict on each other method against `best`."""
    beside_baseline: dict[str, Verdict]
    """Verdict on each method against the baseline; empty where it was not measured."""
    near: frozenset[str]
    """`best`, and the methods whose means are within one standard error of its mean."""

    @property
    def winners(self) -> list[str]:
        """The methods that beat the baseline."""
        return [name for name, verdict in self.beside_baseline.items() if verdict == "better"]


def compared_with_best(methods: Sequence[Method]) -> Comparison | None:
    """The comparison of methods with one score; None for no method, or for methods with different scores."""
    if not methods or len({method.score for method in methods}) > 1:
        return None
    seeds = SeedVariance.pooled([method.scores for method in methods])
    baseline = next((method.baseline for method in methods if method.baseline is not None), None)
    beside_baseline: dict[str, Verdict] = {}
    if baseline is not None:
        scores = Scores((baseline.accuracy,), methods[0].records, baseline.by_record, seedless=True)
        beside_baseline = {method.name: compare(method.scores, scores, seeds, len(methods)) for method in methods}
    winners = [method for method in methods if beside_baseline.get(method.name) == "better"]
    best = max(winners or methods, key=lambda method: method.mean)
    pairs = len(methods) * (len(methods) - 1) // 2  # the best is known only afterwards, so all pairs count
    beside_best = {
        method.name: compare(method.scores, best.scores, seeds, pairs) for method in methods if method is not best
    }
    near = frozenset(
        method.name
        for method in methods
        if method is best or best.scores.mean - method.scores.mean <= standard_error(best.scores, method.scores, seeds)
    )
    return Comparison(best, beside_best, beside_baseline, near)


def advice(methods: Sequence[Method], probe: bool = False, words: Words | None = None) -> Advice | None:
    """The advice on methods, best first; None where there is nothing to compare.

    Args:
        methods: the methods.
        probe: whether they were trained for a few steps only, so that a full run may give higher scores.
        words: of the language; None: English.
    """
    comparison, words = compared_with_best(methods), words or load()
    if comparison is None or (len(methods) < 2 and not comparison.beside_baseline):
        return None
    return Advice(_reasons(methods, comparison, words), _sentence(methods, comparison, probe, words))


def _sentence(methods: Sequence[Method], comparison: Comparison, probe: bool, words: Words) -> str:
    best, baseline = comparison.best, comparison.best.baseline
    records, value, name = _records(best, words), f"{best.name} ({_value(best, words)})", words("baseline.name")
    if baseline is not None and not comparison.winners:
        later = words("advice.later") if probe else ""
        known = {"baseline": name, "baseline_value": words.number(baseline.accuracy, 3), "records": records}
        if best.mean > baseline.accuracy:
            return words("advice.cannot tell baseline", value=value, later=later, **known)
        return words("advice.no better", best=best.name, value=_value(best, words), later=later, **known)
    beside = ""
    if baseline is not None:
        beside = words("advice.beside", baseline=name, value=words.number(baseline.accuracy, 3))
    equals = _equals(methods, comparison)
    if len(equals) == 1:
        verdicts = comparison.beside_best.values()
        alone = words("advice.alone") if verdicts and set(verdicts) == {"worse"} else ""
        return words(
            "advice.take", best=best.name, score=best.score, value=_value(best, words), records=records, alone=alone,
            beside=beside,
        )  # fmt: skip
    others = _names([method for method in equals if method is not best], words)
    take = _choice(equals, comparison, words)
    return words("advice.cannot tell", value=value, others=others, records=records, take=take, beside=beside)


def _choice(equals: Sequence[Method], comparison: Comparison, words: Words) -> str:
    """The method to take of those that cannot be told apart, and why."""
    best, cheapest = comparison.best, _cheapest(equals)
    chosen = _cheapest([method for method in equals if method.name in comparison.near])
    cost = words("advice.cost", percent=_percent(chosen.trained_share, words))
    if chosen is cheapest and chosen is best:
        return words("advice.best and cheapest", best=best.name, cost=cost)
    if chosen is best:
        return words("advice.best dearer", best=best.name)
    key = "advice.cheapest" if chosen is cheapest else "advice.within"
    return words(key, chosen=chosen.name, value=_value(chosen, words), cost=cost)


def _percent(share: float, words: Words) -> str:
    return words.table["format.percent"].format(words.general(100 * share, 3))


def _cheapest(methods: Sequence[Method]) -> Method:
    """The method with the fewest trained weights; of several the best."""
    return min(methods, key=lambda method: (method.trained_share, -method.mean))


def _equals(methods: Sequence[Method], comparison: Comparison) -> list[Method]:
    """The best method and all that cannot be told from it; with a baseline only methods that beat it."""
    chosen = [method for method in methods if method.name in comparison.winners] or list(methods)
    return [method for method in chosen if comparison.beside_best.get(method.name, "cannot tell") == "cannot tell"]


def _reasons(methods: Sequence[Method], comparison: Comparison, words: Words) -> str:
    best = comparison.best
    sentences = [_evidence(methods, best, words), _doubt(methods, words)]
    kept = [method for method in _equals(methods, comparison) if method.forgotten is not None]
    if len(kept) > 1 and (comparison.winners or not comparison.beside_baseline):
        least = min(kept, key=lambda method: method.forgotten or 0.0)
        nats = words.signed(least.forgotten or 0.0, 3)
        sentences.append(words("advice.forgets least", name=least.name, nats=nats))
    millions = words.number(best.parameters / 1e6, 1)
    size = words("advice.size", millions=millions) if best.parameters else words("advice.this model")
    sentences.append(words("advice.measured", size=size, records=_records(best, words)))
    return " ".join(filter(None, sentences))


def _evidence(methods: Sequence[Method], best: Method, words: Words) -> str:
    interval = ""
    if best.interval is not None:
        interval = words("advice.interval", interval=words.interval(*best.interval))
    seeds = len(best.values)
    text = words.count(
        "advice.best of", seeds, best=best.name, score=best.score, value=_value(best, words), interval=interval
    )
    if len(methods) > 1:
        text += " " + words("advice.rate", rate=words.percent(ERROR_RATE))
    if all(len(method.values) == 1 for method in methods):
        text += " " + words("advice.one seed")
    return text


def _doubt(methods: Sequence[Method], words: Words) -> str:
    """That the records were hardly seen; empty where every method saw each at least once, or it is not known."""
    epochs = [method.epochs for method in methods if method.epochs is not None]
    if not epochs or min(epochs) >= 1 or not methods[0].training_records:
        return ""
    records = words.integer(methods[0].training_records)
    return words("advice.few epochs", epochs=words.general(min(epochs), 2), records=records)


def _records(method: Method, words: Words) -> str:
    if not method.records:
        return words("advice.unknown records")
    return words("advice.records", n=words.integer(method.records))


def _value(method: Method, words: Words) -> str:
    return words.number(method.mean, 3 if method.highest == 1.0 else 1)


def _names(methods: Sequence[Method], words: Words) -> str:
    """`lora, dora and 3 others`."""
    names = [method.name for method in methods]
    if len(names) > 4:
        names = [*names[:3], words.count("advice.others", len(names) - 3)]
    return words.listed(names)
