"""Comparison of methods over seeds: score and standard deviation, cost, and forgetting of the pretraining text.

Recipes that differ only in their seed are one method, by their names: `lora-s1` and `lora-s2` are two seeds of `lora`.
All figures come from evaluations and training summaries, so equal runs give equal pages.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Scores to rank methods by, the first that a model has: higher is better. chrF comes before exact match, for few long
# answers are exactly right.
SCORES = ("accuracy", "chrf", "exact_match")
# Metrics with the number of records behind a score.
_JUDGED = ("examples", "instructions")
_SEED = re.compile(r"^(?P<method>.+)-s\d+$")


@dataclass(frozen=True)
class Method:
    """One method over its seeds."""

    name: str
    parts: str
    """Its parts in words: `classify + lora, from base`."""
    score: str
    """Metric that methods are ranked by."""
    values: tuple[float, ...]
    """Value of that metric for each seed."""
    trained_share: float
    """Trained weights as a share of all."""
    forgets: tuple[float, ...]
    """Forgetting for each seed: increase of the loss on pretraining text, nats a token; empty where not measured."""
    recipes: tuple[str, ...] = ()
    """Its recipes."""
    parameters: int = 0
    """Parameters of the model; 0 where unknown."""
    judged: int = 0
    """Held-out records behind the score; 0 where unknown."""

    @property
    def mean(self) -> float:
        """Mean of `values`."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (n - 1 degrees of freedom); 0 for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def forgotten(self) -> float | None:
        """Mean of `forgets`."""
        return statistics.fmean(self.forgets) if self.forgets else None


def methods(models: Sequence[Mapping[str, Any]]) -> list[Method]:
    """The methods among the report's models, grouped by score, best first.

    Empty where no recipe's name ends in a seed. Merges are not trained and do not count.
    """
    base = next((model["metrics"].get("loss_nats") for model in models if model["name"] == "base"), None)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for model in models:
        trained = "trainable_share" in model.get("training", {})
        if trained and (named := _SEED.match(model["name"])) and _score(model):
            groups.setdefault(named["method"], []).append(model)
    compared = []
    for name, seeds in groups.items():
        losses = [model["metrics"]["loss_nats"] for model in seeds if "loss_nats" in model["metrics"]]
        compared.append(
            Method(
                name, seeds[0]["parts"], _score(seeds[0]), tuple(model["metrics"][_score(model)] for model in seeds),
                seeds[0]["training"]["trainable_share"],
                tuple(loss - base for loss in losses) if base is not None else (),
                tuple(model["name"] for model in seeds), int(seeds[0]["training"].get("parameters", 0)),
                int(next((seeds[0]["metrics"][name] for name in _JUDGED if name in seeds[0]["metrics"]), 0)),
            )
        )  # fmt: skip
    return sorted(compared, key=lambda method: (SCORES.index(method.score), -method.mean))


def lengths(compared: Sequence[Method]) -> dict[str, list[tuple[int, Method]]]:
    """Prefix or prompt -> its methods by number of virtual tokens (`prefix-5`, `prefix-20`), the shortest first.

    Only families of two lengths or more, and with the score of the first method.
    """
    families: dict[str, list[tuple[int, Method]]] = {}
    for method in compared:
        name, _, number = method.name.rpartition("-")
        virtual = re.search(r"\b(prefix|prompt)\b", method.parts)
        if name and number.isdecimal() and virtual and method.score == compared[0].score:
            families.setdefault(name, []).append((int(number), method))
    return {
        name: sorted(family, key=lambda member: member[0])
        for name, family in sorted(families.items())
        if len(family) > 1
    }


def _score(model: Mapping[str, Any]) -> str:
    """The metric that the model is ranked by; empty where it has none."""
    return next((name for name in SCORES if name in model["metrics"]), "")


def as_good(method: Method, best: Method) -> bool:
    """Whether the means differ by at most two standard errors of their difference (Welch), so often by chance."""
    error = math.sqrt(best.spread**2 / len(best.values) + method.spread**2 / len(method.values))
    return best.mean - method.mean <= 2 * error


def advice(compared: Sequence[Method]) -> str:
    """A recommendation in words: the best method, and the smallest that is as good within the standard error.

    Empty for one method, or where the methods have different scores.
    """
    if len(compared) < 2 or len({method.score for method in compared}) > 1:
        return ""  # nothing to compare, or scores that cannot be compared
    best = compared[0]
    equals = [method for method in compared if as_good(method, best)]
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
    """Cost of training one recipe, the mean over a method's seeds."""

    seconds: float
    """Seconds of work, without start-up."""
    peak_memory_mib: float
    """Peak memory in MiB, the largest of the seeds."""
    energy_wh: float
    """Energy in watt hours."""
    measured: bool
    """Whether energy was measured by a meter; otherwise it is estimated."""


def cost(method: Method, records: Mapping[str, Mapping[str, Any]], metered: bool = True) -> Cost | None:
    """The method's cost from the run records of its recipes (name -> record); None where one is missing.

    Without `metered` energy is the estimate even where it was measured.
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


def agreement(predicted: Sequence[str], compared: Sequence[Method]) -> tuple[float, list[str]]:
    """Spearman's rank correlation of a predicted ranking (best first) with the measured one, and the methods in both.

    From -1 to 1; NaN for fewer than three methods.
    """
    from scipy.stats import spearmanr

    names = [method.name for method in compared if method.name in predicted]
    if len(names) < 3:
        return float("nan"), names
    scores = {method.name: method.mean for method in compared}
    return float(spearmanr([-predicted.index(name) for name in names], [scores[name] for name in names])[0]), names
