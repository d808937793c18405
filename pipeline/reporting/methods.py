"""Which method? Recipes that differ in their seed alone are one method: its score and spread, its cost, its forgetting.

A recipe belongs to a method by its name: `lora-s1` and `lora-s2` are two seeds of `lora`. Figures come from the
evaluations and training summaries alone, so the page is the same in every process.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Scores that grow with quality and can be ranked, of several the first: chrF tells answers of many words apart, few of
# which are exactly right.
SCORES = ("accuracy", "chrf", "exact_match")
# How many records they were found on.
_JUDGED = ("examples", "instructions")
_SEED = re.compile(r"^(?P<method>.+)-s\d+$")


@dataclass(frozen=True)
class Method:
    """One method over its seeds."""

    name: str
    parts: str
    score: str
    """Name of the metric that methods are ranked by."""
    values: tuple[float, ...]
    """That metric, a number per seed."""
    trained_share: float
    forgets: tuple[float, ...]
    """Nats a token that the pretraining text costs more than before, a number per seed; empty where not measured."""
    recipes: tuple[str, ...] = ()
    parameters: int = 0
    """Of the model; 0 where nobody said."""
    judged: int = 0
    """Held-out records that the score was found on; 0 where nobody said."""

    @property
    def mean(self) -> float:
        """Mean of `values`."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds, n - 1 below the line; 0 for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def forgotten(self) -> float | None:
        """Mean of `forgets`."""
        return statistics.fmean(self.forgets) if self.forgets else None


def methods(models: Sequence[Mapping[str, Any]]) -> list[Method]:
    """The methods among the report's models, those of one score together, best first.

    Empty where no recipe is named as a seed. Merges are none.
    """
    base = next((model["metrics"].get("loss_nats") for model in models if model["name"] == "base"), None)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        trained = "trainable_share" in model.get("training", {})
        if trained and (named := _SEED.match(model["name"])) and _score(model):
            groups.setdefault(named["method"], []).append(model)
    found = []
    for name, seeds in groups.items():
        losses = [model["metrics"]["loss_nats"] for model in seeds if "loss_nats" in model["metrics"]]
        found.append(
            Method(
                name, seeds[0]["parts"], _score(seeds[0]), tuple(model["metrics"][_score(model)] for model in seeds),
                seeds[0]["training"]["trainable_share"],
                tuple(loss - base for loss in losses) if base is not None else (),
                tuple(model["name"] for model in seeds), int(seeds[0]["training"].get("parameters", 0)),
                int(next((seeds[0]["metrics"][name] for name in _JUDGED if name in seeds[0]["metrics"]), 0)),
            )
        )  # fmt: skip
    return sorted(found, key=lambda method: (SCORES.index(method.score), -method.mean))


def lengths(found: Sequence[Method]) -> dict[str, list[tuple[int, Method]]]:
    """Prefixes and prompts that differ in their number of virtual tokens alone (`prefix-5`, `prefix-20`), the shortest
    first, by their name without it; only those of two lengths or more, and of the first method's score.
    """
    families: dict[str, list[tuple[int, Method]]] = {}
    for method in found:
        name, _, number = method.name.rpartition("-")
        virtual = re.search(r"\b(prefix|prompt)\b", method.parts)
        if name and number.isdecimal() and virtual and method.score == found[0].score:
            families.setdefault(name, []).append((int(number), method))
    return {
        name: sorted(family, key=lambda one: one[0]) for name, family in sorted(families.items()) if len(family) > 1
    }


def _score(model: Mapping[str, Any]) -> str:
    """The metric that the model is ranked by; empty where it has none."""
    return next((name for name in SCORES if name in model["metrics"]), "")


def as_good(method: Method, best: Method) -> bool:
    """Whether the means differ by no more than two standard errors of their difference: what chance often does."""
    error = (best.spread**2 / len(best.values) + method.spread**2 / len(method.values)) ** 0.5
    return best.mean - method.mean <= 2 * error


def advice(found: Sequence[Method]) -> str:
    """What follows from the figures, in words: the best, and the smallest that is as good within the spread.

    Empty where there is one method only, or where their scores are of different kinds.
    """
    if len(found) < 2 or len({method.score for method in found}) > 1:
        return ""  # nothing to compare, or scores that cannot be compared
    best = found[0]
    equals = [method for method in found if as_good(method, best)]
    small = min(equals, key=lambda method: method.trained_share)
    seeds = len(best.values)
    text = f"Best on this data over {seeds} seed{'s' if seeds > 1 else ''}: {best.name}, {best.score} {best.mean:.3f}."
    if small is not best:
        text += (
            f" {small.name} is as good within the spread ({small.mean:.3f}) and trains "
            f"{100 * small.trained_share:.2f} % of the weights instead of {100 * best.trained_share:.2f} %: take it "
            "where memory or storage counts."
        )
    kept = [method for method in equals if method.forgotten is not None]
    if kept:
        least = min(kept, key=lambda method: method.forgotten or 0.0)
        text += (
            f" Among those that are as good, {least.name} forgets least: the pretraining text costs "
            f"{least.forgotten:+.3f} nats a token."
        )
    size = f"{best.parameters / 1e6:.1f} M parameters" if best.parameters else "this model"
    data = f"{best.judged} held-out records" if best.judged else "these records"
    return f"{text} Measured with {size} on {data}; other sizes and data must be measured again."


@dataclass(frozen=True)
class Cost:
    """What training one recipe took, the mean over a method's seeds."""

    seconds: float
    peak_memory_mib: float
    energy_wh: float
    measured: bool
    """Whether a meter was read; otherwise energy is estimated."""


def cost(method: Method, records: Mapping[str, Mapping[str, Any]], metered: bool = True) -> Cost | None:
    """The method's cost by the run records of its recipes (name -> record); None where one is missing.

    Without `metered` energy is the estimate even where a meter was read.
    """
    if not method.recipes or not set(method.recipes) <= records.keys():
        return None
    chosen = [records[name] for name in method.recipes]
    energy = [(metered and r["energy_wh_measured"]) or r["energy_wh_estimated"] or 0.0 for r in chosen]
    return Cost(
        statistics.fmean(record["seconds_work"] for record in chosen),
        max(record["peak_memory_mib"] for record in chosen),
        statistics.fmean(energy),
        metered and all(record["energy_wh_measured"] is not None for record in chosen),
    )


def agreement(predicted: Sequence[str], found: Sequence[Method]) -> tuple[float, list[str]]:
    """How well a predicted ranking, best first, foretold the found one: Spearman's rank correlation over the methods
    that both name, from -1 to 1, and those methods. NaN for fewer than three.
    """
    from scipy.stats import spearmanr

    names = [method.name for method in found if method.name in predicted]
    if len(names) < 3:
        return float("nan"), names
    scores = {method.name: method.mean for method in found}
    return float(spearmanr([-predicted.index(name) for name in names], [scores[name] for name in names])[0]), names
