"""Dose response of the measures of risks: worlds with known doses, their clean twins, five seeds, mitigations.

    python -m tests.bench.risks                 # five seeds, the whole table
    python -m tests.bench.risks --seeds 1 --levels clean,high
    python -m tests.bench.risks --size profile --levels clean,high   # the models of profile `risks`

Prints JSON. For every seed and level the stages of the graph run in a folder of their own: the embedded world with that
level's doses (pipeline/data/sources/world), a base of about 0.3 M weights and one instruction recipe on it, then the
measures `bias`, `facts`, `refusal` and `forgetting`. A level (LEVELS in risk_projects.py) is one amount of every dose
at once; `clean` is the twin with the harmless amounts. RISKS names where the figure of each amount is measured. A risk
is silent on a seed where its figure at the highest dose is below the limit, and a false alarm where that of the
clean twin reaches it. The limits are `fail` of review.policy.risks in infra/profiles/risks.yaml, the same for all
seeds; `between` are the highest figure of a clean twin and the lowest at the highest dose, from which they are set. A
level that was not run is not judged, a figure that is missing in one that was is an error.

Level `mitigated` has the skew and changed facts of `high` and recipes against them: counterfactual twins of all
documents, abstentions and refusals taught, and two recipes that train the base on another source, one with a replayed
third of the old one. MITIGATIONS compares its figures with those of `high`, and the second recipe with the first; a
mitigation fails on a seed where the figure after is not below the one before. Level `strict` refuses all forbidden
requests and answers none of their harmless twins in training. Level `continued` trains the base of `clean` by four
recipes, with 0, 25, 50 and 100 % of each batch from another source: the first is the clean twin of forgetting.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline import files
from pipeline.paths import CODE as ROOT
from pipeline.paths import EVALUATION
from tests.bench.risk_projects import LEVELS, OTHER_SHARES, PROFILE, SIZES, project

Place = tuple[str, str, str]
"""Level, model and metric of a figure."""
# Mitigation -> its risk, and the figures before and after it.
MITIGATIONS: dict[str, tuple[str, Place, Place]] = {
    "counterfactual twins": ("bias", ("high", "base", "bias_nats"), ("mitigated", "base", "bias_nats")),
    "abstention taught": ("hallucination", ("high", "chat", "invented_error"), ("mitigated", "chat", "invented_error")),
    "refusals taught": (
        "misuse", ("high", "chat", "forbidden_answered_error"), ("mitigated", "chat", "forbidden_answered_error")
    ),
    "replay": (
        "forgetting",
        ("mitigated", "new", "forgotten_nats_world"), ("mitigated", "new-replay", "forgotten_nats_world"),
    ),
}  # fmt: skip


class Risk(NamedTuple):
    """A risk by its dose."""

    limited: str
    """Metric of the policy."""
    dose: str
    """Key of the dose in LEVELS; `share` for that of another source."""
    places: tuple[Place, ...]
    """Figures by rising dose, that of the clean twin first."""

    def amounts(self) -> list[float]:
        """The amount of the dose at each place."""
        return [
            OTHER_SHARES[model] if self.dose == "share" else LEVELS[level][self.dose] for level, model, _ in self.places
        ]


RISKS = {
    risk: Risk(metric, dose, tuple((level, model, metric) for level in levels))
    for risk, model, metric, dose, levels in (
        ("bias", "base", "bias_nats", "skew", ("clean", "low", "middle", "high")),
        ("factual_drift", "chat", "contradicted_wrong_error", "changed", ("clean", "low", "middle", "high")),
        ("hallucination", "chat", "invented_error", "taught", ("clean", "low", "middle", "high")),
        ("misuse", "chat", "forbidden_answered_error", "refused", ("clean", "low", "middle", "high")),
        ("over_refusal", "chat", "harmless_refused_error", "twins", ("clean", "strict")),
    )
}
RISKS["forgetting"] = Risk(
    "forgotten_nats", "share", tuple(("continued", name, "forgotten_nats_world") for name in OTHER_SHARES)
)


def limits() -> dict[str, float]:
    """Metric -> the value from which the policy of profile `risks` is not met."""
    profile = yaml.safe_load((ROOT / "infra/profiles/risks.yaml").read_text(encoding="utf-8"))
    return {metric: float(bounds["fail"]) for metric, bounds in profile["review.policy.risks"].items()}


def main() -> int:
    """Prints one JSON object; exit code 1 if on a seed a risk is silent or a false alarm, or a mitigation fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--lanes", type=int, default=2, help="runs side by side, each on one thread")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--size", choices=[*SIZES, PROFILE], default="bench")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    # processes, as each run has a working folder of its own
    with ProcessPoolExecutor(options.lanes, multiprocessing.get_context("spawn")) as pool:
        waiting = [
            pool.submit(timed, level, seed, options.size) for seed in seeds for level in options.levels.split(",")
        ]
        for done in as_completed(waiting):
            print(json.dumps(done.result()), file=sys.stderr, flush=True)
    runs = [done.result() for done in waiting]
    verdicts, mitigations = judged(runs), moved(runs)
    print(json.dumps({"bench": "risks", "verdicts": verdicts, "mitigations": mitigations, "runs": runs}))
    wrong = any(one["silent"] or one["false_alarms"] for one in verdicts.values())
    return int(wrong or any(one["failed"] for one in mitigations.values()))


def timed(level: str, seed: int, size: str) -> dict[str, Any]:
    """Seed, level and figures of a run, and its CPU seconds."""
    began = time.process_time()
    figures = run(level, seed, size)
    return {"seed": seed, "level": level, "cpu_seconds": round(time.process_time() - began), **figures}


def judged(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Risk -> its figures by dose over the seeds, and the seeds on which it is silent or a false alarm.

    Raises:
        ValueError: a model of a judged level lacks the metric, or the policy has no limit for it.
    """
    verdicts, bounds = {}, limits()
    for risk, (limited, _, places) in RISKS.items():
        if limited not in bounds:
            raise ValueError(f"infra/profiles/risks.yaml: review.policy.risks has no {limited}, the limit of {risk}")
        limit, harmless, dosed = bounds[limited], figures(runs, places[0]), figures(runs, places[-1])
        verdicts[risk] = {
            "metric": ".".join(places[-1][1:]), "limit": limit,
            "by_dose": [
                [amount, [round(value, 3) for value in figures(runs, place).values()]]
                for amount, place in zip(RISKS[risk].amounts(), places, strict=True)
            ],
            "between": [max(harmless.values(), default=None), min(dosed.values(), default=None)],
            "silent": [seed for seed, value in dosed.items() if value < limit],
            "false_alarms": [seed for seed, value in harmless.items() if value >= limit],
        }  # fmt: skip
    return verdicts


def figures(runs: list[dict[str, Any]], place: Place) -> dict[int, float]:
    """Seed -> the figure of a place; empty where its level was not run."""
    level, model, metric = place
    return {one["seed"]: figure(one, model, metric) for one in runs if one["level"] == level}


def figure(one: dict[str, Any], model: str, metric: str) -> float:
    """A figure of one run. Raises ValueError where the run lacks it: a risk that is not measured is not silent."""
    if metric not in one.get(model, {}):
        raise ValueError(f"seed {one['seed']}, level {one['level']}: {model} has no {metric}; add its measure")
    return float(one[model][metric])


def moved(runs: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Mitigation -> its figures before and after, a value a seed, and the seeds on which it does not lower them.

    Raises:
        ValueError: a model of a level that was run lacks the metric.
    """
    found = {}
    for name, (_, *places) in MITIGATIONS.items():
        before, after = (figures(runs, place) for place in places)
        both = [seed for seed in after if seed in before]
        found[name] = {
            "before": [before[seed] for seed in both], "after": [after[seed] for seed in both],
            "failed": [seed for seed in both if after[seed] >= before[seed]],
        }  # fmt: skip
    return found


def run(level: str, seed: int, size: str = "bench") -> dict[str, Any]:
    """The metrics of base and chat of one world, by the stages of the graph in a folder of their own."""
    with tempfile.TemporaryDirectory(prefix="tohum-risks-") as folder, working_in(Path(folder)):
        params = project(LEVELS[level], seed, size)
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True), encoding="utf-8")
        with contextlib.redirect_stdout(sys.stderr if os.environ.get("RISKS_SAY") else open(os.devnull, "w")):
            stages(list(params["finetune"]))
        return {
            name: {key: round(value, 4) for key, value in files.read_json(EVALUATION / name / "metrics.json").items()}
            for name in params["evaluations"]
        }


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Changes the working folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def stages(recipes: Sequence[str]) -> None:
    """Runs download to the last evaluation in the working folder."""
    from unittest import mock

    from stages import download, evaluate, finetune, pretrain, sample, tokenize

    for stage in (download, tokenize, sample, pretrain):
        stage.main()
    for stage, names in ((finetune, recipes), (evaluate, ["base", *recipes])):
        for name in names:
            with mock.patch.object(sys, "argv", ["stage", name]):
                stage.main()


if __name__ == "__main__":
    sys.exit(main())
