"""Methods over their seeds: score and standard deviation, cost, and forgetting of the pretraining text.

Recipes that differ only in their seed are one method, by their names: `lora-s1` and `lora-s2` are two seeds of `lora`.
All figures come from evaluations and training summaries, so equal runs give equal pages.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.significance import Scores, wilson

# Scores to rank methods by, the first that a model has: higher is better. chrF comes before exact match, for few long
# answers are exactly right.
SCORES = ("accuracy", "chrf", "exact_match")
BASELINE = "TF-IDF baseline"
"""Name of the baseline, TF-IDF with logistic regression, in sentences and tables."""
# Score -> the measure whose details hold it for each record, the highest value, and the metric that counts the records.
_BY_RECORD = {
    "accuracy": ("classification", 1.0, "examples"),
    "chrf": ("overlap", 100.0, "instructions"),
    "exact_match": ("exact_match", 1.0, "instructions"),
}
_SEED = re.compile(r"^(?P<method>.+)-s\d+$")


@dataclass(frozen=True)
class Baseline:
    """TF-IDF with logistic regression on the held-out records of the methods."""

    accuracy: float
    records: int
    """Held-out records."""
    by_record: tuple[float, ...]
    """1 for each record that it labels right, else 0; empty where not kept."""
    majority: float | None = None
    """Accuracy of the most frequent training label; None where not kept."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of its accuracy."""
        return wilson(self.accuracy, self.records)


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
    records: int = 0
    """Held-out records behind the score; 0 where unknown."""
    by_record: tuple[float, ...] = ()
    """Score of each held-out record from 0 to 1, the mean over the seeds; empty where not kept."""
    epochs: float | None = None
    """Times that the training records were seen, the mean over the seeds; None where unknown."""
    training_records: int = 0
    """Training records; 0 where unknown."""
    baseline: "Baseline | None" = None
    """The baseline on the same records; None where it was not measured."""

    @property
    def mean(self) -> float:
        """Mean of `values`."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds (n - 1 degrees of freedom); 0 for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def highest(self) -> float:
        """The highest value of its score."""
        return _BY_RECORD[self.score][1]

    @property
    def scores(self) -> Scores:
        """Its scores from 0 to 1."""
        return Scores(tuple(value / self.highest for value in self.values), self.records, self.by_record)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean for the number of held-out records; None for chrF, which is no share."""
        return wilson(self.mean, self.records) if self.records and self.highest == 1.0 else None

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
    compared = [_method(name, seeds, base) for name, seeds in groups.items()]
    return sorted(compared, key=lambda method: (SCORES.index(method.score), -method.mean))


def _method(name: str, seeds: Sequence[Mapping[str, Any]], base: float | None) -> Method:
    """One method from the report's models of its seeds; `base` is the loss of the base on the pretraining text."""
    first, training = seeds[0], [model["training"] for model in seeds]
    score = _score(first)
    measure, _, counted = _BY_RECORD[score]
    measured = [model.get("details", {}) for model in seeds]
    details = [shown.get(measure) or shown.get("multi_label", {}) for shown in measured]
    losses = [model["metrics"]["loss_nats"] for model in seeds if "loss_nats" in model["metrics"]]
    baseline = first["metrics"].get("baseline_accuracy") if score == "accuracy" else None
    epochs = [summary["epochs"] for summary in training if "epochs" in summary]
    records = int(first["metrics"].get(counted, 0))
    return Method(
        name=name,
        parts=first["parts"],
        score=score,
        values=tuple(model["metrics"][score] for model in seeds),
        trained_share=training[0]["trainable_share"],
        forgets=tuple(loss - base for loss in losses) if base is not None else (),
        recipes=tuple(model["name"] for model in seeds),
        parameters=int(training[0].get("parameters", 0)),
        records=records,
        by_record=_mean_by_record([_numbers(shown.get("by_record", "")) for shown in details]),
        epochs=statistics.fmean(epochs) if epochs else None,
        training_records=int(training[0].get("records", 0)),
        baseline=None
        if baseline is None
        else Baseline(
            baseline,
            records,
            _numbers(details[0].get("baseline_by_record", "")),
            first["metrics"].get("majority_accuracy"),
        ),
    )


def _numbers(text: str) -> tuple[float, ...]:
    """The numbers that pipeline.evaluation.by_record wrote."""
    return tuple(map(float, text.split()))


def _mean_by_record(seeds: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Score of each record, the mean over the seeds; empty where the seeds have different numbers of records."""
    if len({len(scores) for scores in seeds}) > 1:
        return ()
    return tuple(statistics.fmean(scores) for scores in zip(*seeds, strict=True))


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
