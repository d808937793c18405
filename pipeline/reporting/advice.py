"""Advice on fine-tuning methods: which to take, that it cannot be told, or not to fine-tune.

Methods are compared with the baseline and with the best one by `pipeline.significance.compare`: over seeds and
held-out records, 5 % false findings over all comparisons of a question. Of the methods that cannot be told from the
best the cheapest, with the fewest trained weights, is advised, if its mean is within one standard error of the best
(Breiman, Friedman, Olshen, Stone 1984, section 3.4.3): a large difference that few records and seeds cannot prove is
no equality.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.reporting.methods import BASELINE, Method
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


def advice(methods: Sequence[Method], probe: bool = False) -> Advice | None:
    """The advice on methods, best first; None where there is nothing to compare.

    Args:
        methods: the methods.
        probe: whether they were trained for a few steps only, so that a full run may give higher scores.
    """
    comparison = compared_with_best(methods)
    if comparison is None or (len(methods) < 2 and not comparison.beside_baseline):
        return None
    return Advice(_reasons(methods, comparison), _sentence(methods, comparison, probe))


def _sentence(methods: Sequence[Method], comparison: Comparison, probe: bool) -> str:
    best, baseline = comparison.best, comparison.best.baseline
    records, value = _records(best), f"{best.name} ({_value(best)})"
    if baseline is not None and not comparison.winners:
        later = "; a full run may still beat it" if probe else ""
        if best.mean > baseline.accuracy:
            return (
                f"Cannot tell {value} from the {BASELINE} ({baseline.accuracy:.3f}) on {records}: take the baseline, "
                f"which is cheapest, or hold out more records{later}."
            )
        return (
            f"Don't fine-tune: the {BASELINE} is at {baseline.accuracy:.3f}, no method is better (the best, "
            f"{best.name}, is at {_value(best)}, on {records}){later}."
        )
    beside = f"; the {BASELINE} is at {baseline.accuracy:.3f}" if baseline is not None else ""
    equals = _equals(methods, comparison)
    if len(equals) == 1:
        verdicts = comparison.beside_best.values()
        alone = ", better than every other method" if verdicts and set(verdicts) == {"worse"} else ""
        return f"Take {best.name}: {best.score} {_value(best)} on {records}{alone}{beside}."
    cheapest = _cheapest(equals)
    chosen = _cheapest([method for method in equals if method.name in comparison.near])
    cost = f"{100 * chosen.trained_share:.3g} % of the weights trained"
    if chosen is cheapest and chosen is best:
        take = f"{best.name}, which is also the cheapest ({cost})"
    elif chosen is cheapest:
        take = f"the cheapest, {chosen.name} ({_value(chosen)}, {cost})"
    elif chosen is best:
        take = f"{best.name}, as the cheaper ones are lower by more than one standard error"
    else:
        take = f"{chosen.name} ({_value(chosen)}, {cost}), the cheapest within one standard error of the best"
    others = _names([method for method in equals if method is not best])
    return f"Cannot tell {value} from {others} on {records}: take {take}{beside}."


def _cheapest(methods: Sequence[Method]) -> Method:
    """The method with the fewest trained weights; of several the best."""
    return min(methods, key=lambda method: (method.trained_share, -method.mean))


def _equals(methods: Sequence[Method], comparison: Comparison) -> list[Method]:
    """The best method and all that cannot be told from it; with a baseline only methods that beat it."""
    chosen = [method for method in methods if method.name in comparison.winners] or list(methods)
    return [method for method in chosen if comparison.beside_best.get(method.name, "cannot tell") == "cannot tell"]


def _reasons(methods: Sequence[Method], comparison: Comparison) -> str:
    best = comparison.best
    sentences = [_evidence(methods, best), _doubt(methods)]
    kept = [method for method in _equals(methods, comparison) if method.forgotten is not None]
    if len(kept) > 1 and (comparison.winners or not comparison.beside_baseline):
        least = min(kept, key=lambda method: method.forgotten or 0.0)
        sentences.append(
            f"Of the best method and those that cannot be told from it, {least.name} forgets least: the pretraining "
            f"text costs {least.forgotten:+.3f} nats a token."
        )
    size = f"{best.parameters / 1e6:.1f} M parameters" if best.parameters else "this model"
    sentences.append(f"Measured with {size} on {_records(best)}; other sizes and data must be measured again.")
    return " ".join(filter(None, sentences))


def _evidence(methods: Sequence[Method], best: Method) -> str:
    seeds = len(best.values)
    interval = "" if best.interval is None else f", 95 % interval {best.interval[0]:.3f} to {best.interval[1]:.3f}"
    text = f"Best: {best.name}, {best.score} {_value(best)} ({seeds} seed{'s' if seeds > 1 else ''}{interval})."
    if len(methods) > 1:
        text += (
            " Methods count as different where, over all comparisons, chance alone would find a difference in at most "
            f"{100 * ERROR_RATE:.0f} % of repetitions with other records and seeds."
        )
    if all(len(method.values) == 1 for method in methods):
        text += " With one seed each, the spread over seeds is not known and not counted."
    return text


def _doubt(methods: Sequence[Method]) -> str:
    """That the records were hardly seen; empty where every method saw each at least once, or it is not known."""
    epochs = [method.epochs for method in methods if method.epochs is not None]
    if not epochs or min(epochs) >= 1 or not methods[0].training_records:
        return ""
    records = f"{methods[0].training_records:,} training records"
    return f"The methods saw only {min(epochs):.2g} epochs of the {records}: longer training may change this."


def _records(method: Method) -> str:
    return f"{method.records:,} held-out records" if method.records else "an unknown number of held-out records"


def _value(method: Method) -> str:
    return f"{method.mean:.3f}" if method.highest == 1.0 else f"{method.mean:.1f}"


def _names(methods: Sequence[Method]) -> str:
    """`lora, dora and 3 others`."""
    names = [method.name for method in methods]
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} others"]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
