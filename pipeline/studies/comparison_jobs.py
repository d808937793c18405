"""The measurements of a comparison: a job for each process, and its results, kept by a fingerprint.

Each measurement is a process of its own (comparison_worker.py), one per core at a time. Its result is a file below the
comparison's folder, under a hash of everything that decides it: model, samples, job, code, torch. An interrupted
comparison continues with the measurements that are left.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pipeline import closure, files
from pipeline.config import plugins
from pipeline.config.recipe import AXES, Kind
from pipeline.orchestration.process import beside, cores
from pipeline.paths import SAMPLES, TOKENIZER, WORK
from pipeline.studies import comparison_plan, comparison_project
from pipeline.studies.comparison_plan import SEEDS, Limits, Plan, Speed
from pipeline.studies.comparison_project import FOLDER, SCRATCH
from pipeline.studies.released import Base, template_of
from pipeline.studies.sizes import Sizes, measured
from pipeline.tokenizer import Tokenizer

WORKER = "pipeline.studies.comparison_worker"
RESULTS = FOLDER / WORK / "comparison"
WITHOUT_MODEL = {"labelled": ("majority", "TF-IDF"), "instructions": ()}
"""Kind of records -> methods that need no model."""
PROMPTS = {0: "zero-shot", 4: "4-shot", 8: "8-shot"}
"""Examples in the prompt -> name of the method."""
SPEED, SMALL_MODEL = "speed", "small model"
"""Names of jobs."""
_SHORT_ANSWER = 8
"""Median tokens of an answer up to which it is expected to the letter."""
_MOST_BYTES = 20
"""Bytes a weight of full fine-tuning: weight, gradient, two moments and the best weights so far, float32."""
Job = dict[str, Any]
Results = dict[str, dict[str, Any]]
"""Name of a job -> name of a row -> its figures."""


@dataclass(frozen=True)
class Subject:
    """The records, the model and the score that all measurements share."""

    kind: Kind
    base: Base
    score: str
    """accuracy, exact_match or chrf."""
    sizes: Sizes
    limits: Limits
    params: dict[str, Any]
    """Of the comparison's project, without recipes."""
    vocabulary: Tokenizer

    @property
    def task(self) -> dict[str, Any]:
        """The task of every recipe."""
        if self.kind == "labelled":
            return {"name": "classify", "max_tokens": self.limits.max_tokens}
        template = template_of(self.vocabulary)
        limits = {"max_tokens": self.limits.max_tokens, "max_prompt_tokens": self.limits.max_prompt_tokens}
        return {"name": "chat" if self.sizes.turns else "instruct", "template": template, **limits}

    @property
    def words(self) -> int:
        """Passes that a labelled text takes for its label words: one, or one a label; 0 for answers."""
        if self.kind != "labelled":
            return 0
        table = pq.ParquetFile(FOLDER / SAMPLES / "labelled" / "train.parquet").read(columns=["label"])
        labels = sorted(set(table["label"].to_pylist()))
        return 1 if all(len(self.vocabulary.encode(f" {label}")) == 1 for label in labels) else len(labels)

    def recipe(self, method: str, seed: int, setting: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """A recipe of `finetune`."""
        batch_size, batches = self.limits.batch_size, self.limits.validation_batches
        sizes = {"batch_size": batch_size, "steps": steps, "validation_batches": batches}
        return comparison_project.recipe(self.kind, method, seed, self.task, dict(setting), sizes)

    def training(self, name: str, recipe: dict[str, Any], project: str = ".", base: str = "") -> Job:
        """The job that trains a recipe and scores it."""
        return {
            "do": "train", "names": [name], "name": name, "project": project, "base": base or str(self.base.folder),
            "recipe": recipe, "score": self.score, "answer_tokens": self.limits.answer_tokens,
            "held_out": self.limits.held_out,
        }  # fmt: skip


def subject_of(params: dict[str, Any], kind: Kind, base: Base) -> Subject:
    """The subject of a project whose data is sampled."""
    with contextlib.chdir(FOLDER):
        sizes, vocabulary = measured(SAMPLES, TOKENIZER, kind), Tokenizer.load(TOKENIZER)
    around = len(vocabulary.text_prefix) + len(vocabulary.text_suffix)
    score = "accuracy"
    if kind == "instructions":
        score = "exact_match" if np.median(sizes.answers) <= _SHORT_ANSWER else "chrf"
    limits = comparison_plan.limits(kind, sizes, base.context_length, around)
    return Subject(kind, base, score, sizes, limits, params, vocabulary)


def measure_speed(subject: Subject) -> Speed:
    """The seconds of an update and of a token, by a process that runs alone."""
    recipes = {}
    for method in comparison_plan.METHODS:
        setting = comparison_plan.settings(method, subject.base.width)[0]
        recipes[method] = subject.recipe(method, SEEDS[0], setting, subject.limits.steps)
    job = {"do": "speed", "names": [SPEED], "base": str(subject.base.folder), "recipes": recipes}
    figures = run({SPEED: job}, subject)[SPEED][SPEED]
    reasons = {method: short(reason) for method, reason in figures["reasons"].items()}
    memory = _MOST_BYTES * subject.base.parameters * cores()
    if memory > 0.8 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        figures["full"] = None
        reasons["full"] = f"needs about {memory / 2**30:,.0f} GiB of memory in {cores()} processes side by side"
    return Speed(figures["loading"], figures["forward_token"], figures["lora"], figures["full"], reasons)


def first_jobs(subject: Subject, plan: Plan) -> dict[str, Job]:
    """The small model's pretraining, the methods without training, and the trials of the trained ones."""
    limits, base = subject.limits, str(subject.base.folder)
    jobs: dict[str, Job] = {
        SMALL_MODEL: {"do": "scratch", "names": ["scratch"], "project": SCRATCH, "kind": subject.kind}
    }
    if names := WITHOUT_MODEL[subject.kind]:
        jobs["TF-IDF"] = {"do": "baselines", "names": list(names)}
    shared = {"kind": subject.kind, "base": base, "score": subject.score}
    jobs["neighbours"] = shared | {
        "do": "neighbours", "names": ["neighbours"], "limit": limits.max_tokens, "held_out": limits.held_out,
    }  # fmt: skip
    for shots, name in PROMPTS.items() if subject.base.generates else ():
        jobs[name] = shared | {
            "do": "prompts", "names": [name], "shots": shots, "limit": limits.max_prompt_tokens,
            "answer_tokens": limits.answer_tokens, "held_out": plan.prompt_records.get(shots, 0),
        }  # fmt: skip
    for method, trials in plan.trials.items():
        for number, setting in enumerate(trials.settings, start=1):
            jobs[trial(method, number)] = subject.training(
                method, subject.recipe(method, SEEDS[0], setting, trials.steps)
            )
    return jobs


def second_jobs(subject: Subject, plan: Plan, chosen: Mapping[str, int], results: Results) -> dict[str, Job]:
    """The other seeds of the chosen trials, and the small model's fine-tuning.

    Args:
        subject: of the comparison.
        plan: with the settings of every trial.
        chosen: method -> number of its best trial.
        results: of the first jobs.
    """
    jobs: dict[str, Job] = {}
    for method, number in chosen.items():
        trials = plan.trials[method]
        for seed in SEEDS[1:]:
            recipe = subject.recipe(method, seed, trials.settings[number - 1], trials.steps)
            jobs[seeded(method, seed)] = subject.training(method, recipe)
    small = results[SMALL_MODEL]["scratch"]
    if "missing" not in small:
        for seed in SEEDS:
            recipe = small["recipe"] | {"seed": seed}
            jobs[seeded("scratch", seed)] = subject.training("scratch", recipe, SCRATCH, small["base"])
    return jobs


def trial(method: str, number: int) -> str:
    """Name of the job of a trial, from 1."""
    return f"{method}, trial {number}"


def seeded(method: str, seed: int) -> str:
    """Name of the job of a later seed."""
    return f"{method}, seed {seed}"


def chosen_trials(plan: Plan, results: Results) -> dict[str, int]:
    """Method -> number of the trial with the lowest validation loss; without methods all of whose trials failed."""
    chosen = {}
    for method, trials in plan.trials.items():
        losses = {}
        for number in range(1, len(trials.settings) + 1):
            figures = results[trial(method, number)][method]
            if "missing" not in figures:
                losses[number] = figures["validation_loss"]
        if losses:
            chosen[method] = min(losses, key=lambda number: losses[number])
    return chosen


def run(jobs: Mapping[str, Job], subject: Subject) -> Results:
    """The results of jobs; those whose result is kept do not run again.

    Raises:
        UserError: a process failed; the others are ended.
    """
    keys = dict(zip(jobs, _keys(list(jobs.values()), subject), strict=True))
    left = {name: key for name, key in keys.items() if not _is_kept(name, RESULTS / f"{key}.json")}
    if left:
        with contextlib.chdir(FOLDER):
            beside({name: [WORKER, key, json.dumps(jobs[name])] for name, key in left.items()}, cores())
    return {name: files.read_json(RESULTS / f"{key}.json") for name, key in keys.items()}


def _is_kept(name: str, result: Path) -> bool:
    """Whether a job need not run: its result is there, and of the small model its base too, not that of other data."""
    if not result.is_file():
        return False
    if name != SMALL_MODEL or "missing" in (small := files.read_json(result)["scratch"]):
        return True
    base = FOLDER / SCRATCH / small["base"]
    return base.is_dir() and bool(files.sha256_of(base) == small.get("base_sha256"))


def _keys(jobs: Sequence[Job], subject: Subject) -> list[str]:
    """A fingerprint of everything that decides each job's result."""
    folders = (*AXES.values(), "evaluation", "data/sources", "data/formats", "data/augment")
    shared = {
        "code": closure.code([WORKER], {folder: plugins.choices(folder) for folder in folders}),
        "samples": files.sha256_of(FOLDER / SAMPLES),
        "base": subject.base.sha256,
        "compute": subject.params["compute"],
        "torch": importlib.metadata.version("torch"),
    }
    text = json.dumps(shared, sort_keys=True)
    return [hashlib.sha256((text + json.dumps(job, sort_keys=True)).encode()).hexdigest()[:32] for job in jobs]


def short(reason: str) -> str:
    """The first part of an error, for a table."""
    return reason.partition("; ")[0].removeprefix("params.yaml: ").removeprefix("finetune.probe.")
