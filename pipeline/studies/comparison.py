"""The comparison that a user needs: every way from their records to answers, beside a released model, in one table.

Rows: the most frequent label, TF-IDF with logistic regression, nearest neighbours on the model's embeddings, the model
asked without and with examples, LoRA, full fine-tuning, and the small model of a try from scratch. Each measurement is
a process of its own (comparison_job.py), one per core at a time; its result is kept below `.tohum/which` under a
fingerprint of everything that decides it, so that an interrupted comparison continues. The last sentence says which
method to take, or not to fine-tune. Rank, learning rate and epochs are chosen on the validation split.

The result is a prediction for the full run, which is the project in `.tohum/which` itself.
"""

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline import closure, files
from pipeline.config import plugins
from pipeline.config.recipe import AXES, Kind
from pipeline.orchestration.process import beside, cores
from pipeline.paths import SAMPLES, TOKENIZER, WORK
from pipeline.reporting.recommendation import Recommendation, Row, recommend
from pipeline.studies import comparison_plan, comparison_project, speed
from pipeline.studies.comparison_plan import SEEDS, Plan, Speed
from pipeline.studies.comparison_project import FOLDER, SCRATCH, Base
from pipeline.studies.guess import Guess
from pipeline.studies.sizes import Sizes, measured
from pipeline.tokenizer import Tokenizer

_JOB = "pipeline.studies.comparison_job"
RESULTS = FOLDER / WORK / "comparison"
PREDICTION = WORK / "which.json"
SIMPLE = {"labelled": ("majority", "TF-IDF"), "instructions": ()}
PROMPTS = {0: "zero-shot", 4: "4-shot", 8: "8-shot"}
_SHORT_ANSWER = 8
"""Median tokens of an answer up to which it is expected to the letter."""
_RECORDS_A_MINUTE, _MINUTES = 200, (1.0, 6.0)
"""Budget by the number of records, and its bounds in minutes."""
Job = dict[str, Any]


@dataclass(frozen=True)
class _Task:
    """What all jobs share: the records, the model and the score."""

    kind: Kind
    base: Base
    score: str
    sizes: Sizes
    limits: comparison_plan.Limits
    params: dict[str, Any]
    width: int
    vocabulary: Tokenizer

    @property
    def task(self) -> dict[str, Any]:
        """The task of every recipe."""
        if self.kind == "labelled":
            return {"name": "classify", "max_tokens": self.limits.max_tokens}
        limits = {"max_tokens": self.limits.max_tokens, "max_prompt_tokens": self.limits.max_prompt_tokens}
        return {"name": "chat" if self.sizes.turns else "instruct", "template": _template(self.vocabulary), **limits}

    def recipe(self, method: str, seed: int, setting: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """A recipe of `finetune`."""
        sizes = {
            "batch_size": self.limits.batch_size, "steps": steps,
            "validation_batches": self.limits.validation_batches,
        }  # fmt: skip
        return comparison_project.recipe(self.kind, method, seed, self.task, dict(setting), sizes)

    def training(self, name: str, recipe: dict[str, Any], project: str = ".", base: str = "") -> Job:
        """The job that trains a recipe."""
        return {
            "do": "train", "names": [name], "name": name, "project": project,
            "base": base or str(self.base.folder), "recipe": recipe, "score": self.score,
            "answer_tokens": self.limits.answer_tokens, "held_out": self.limits.held_out,
        }  # fmt: skip


def run(data: Path, guessed: Guess, folder: Path, minutes: float | None) -> Recommendation:
    """Compares all methods on a user's file and prints the table; returns the recommendation.

    Args:
        data: the user's file.
        guessed: its format and columns.
        folder: of the released model.
        minutes: that trainings and prompts may take; None: by the number of records.

    Raises:
        UserError: a file or model that cannot be used, or a stage that failed.
    """
    base = comparison_project.read_base(folder)
    print(f"base: {folder}: {base.described}", flush=True)
    if minutes is None:
        minutes = round(min(_MINUTES[1], max(_MINUTES[0], guessed.rows / _RECORDS_A_MINUTE)), 1)
    print(f"budget of trainings and prompts: about {minutes:g} min (--minutes)", flush=True)
    params = comparison_project.make(data, guessed, base)
    task, found = _measured_task(params, guessed.kind, base)
    words = _words(task)
    plan = comparison_plan.plan(task.limits, found, task.sizes, task.width, minutes * 60, cores(), words)
    _print_plan(plan, found)
    results = _first(task, plan)
    chosen = _chosen(plan, results)
    results |= _second(task, plan, chosen, results)
    rows = _rows(task, plan, chosen, results)
    recommended = recommend(rows, task.score)
    _write_project(task, chosen, plan)
    _keep_prediction(data, task, rows, recommended)
    _show(task, rows, recommended)
    return recommended


# -- the steps --------------------------------------------------------------------------------------------------------


def _measured_task(params: dict[str, Any], kind: Kind, base: Base) -> tuple[_Task, Speed]:
    """The records' sizes, the score, and the speed of the model on them."""
    with contextlib.chdir(FOLDER):
        sizes = measured(SAMPLES, TOKENIZER, kind)
        vocabulary = Tokenizer.load(TOKENIZER)
    around = len(vocabulary.text_prefix) + len(vocabulary.text_suffix)
    score = "accuracy"
    if kind == "instructions":
        score = "exact_match" if np.median(sizes.answers) <= _SHORT_ANSWER else "chrf"
    room = _context(base)
    limits = comparison_plan.limits(kind, sizes, room, around)
    task = _Task(kind, base, score, sizes, limits, params, _width(base), vocabulary)
    comparison_project.write(params)
    recipes = {
        method: task.recipe(method, SEEDS[0], comparison_plan.settings(method, task.width)[0], limits.steps)
        for method in ("lora", "full")
    }
    figures = _run({"speed": {"do": "speed", "names": ["speed"], "base": str(base.folder), "recipes": recipes}}, task)
    found = figures["speed"]["speed"]
    return task, Speed(
        found["loading"], found["forward_token"], found["lora"], found["full"],
        {method: _short(reason) for method, reason in found["reasons"].items()},
    )  # fmt: skip


def _first(task: _Task, plan: Plan) -> dict[str, dict[str, Any]]:
    """Methods without training, the trials of the trained ones, and the small model's pretraining."""
    base, limits = str(task.base.folder), task.limits
    jobs: dict[str, Job] = {}
    jobs["small model"] = {"do": "scratch", "names": ["scratch"], "project": SCRATCH, "kind": task.kind}
    if task.kind == "labelled":
        jobs["TF-IDF"] = {"do": "baselines", "names": list(SIMPLE["labelled"])}
    asked = {"kind": task.kind, "base": base, "score": task.score}
    jobs["neighbours"] = asked | {
        "do": "neighbours", "names": ["neighbours"], "limit": limits.max_tokens, "held_out": limits.held_out,
    }  # fmt: skip
    if task.base.generates:
        for shots, name in PROMPTS.items():
            jobs[name] = asked | {
                "do": "prompts", "names": [name], "shots": shots, "limit": limits.max_prompt_tokens,
                "answer_tokens": limits.answer_tokens, "held_out": plan.prompt_records.get(shots, 0),
            }  # fmt: skip
    for method, trials in plan.trials.items():
        for number, setting in enumerate(trials.settings, start=1):
            recipe = task.recipe(method, SEEDS[0], setting, trials.steps)
            jobs[f"{method}, trial {number}"] = task.training(method, recipe)
    return _run(jobs, task)


def _chosen(plan: Plan, results: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[dict[str, Any], str]]:
    """Method -> the setting with the lowest validation loss, and the name of its trial."""
    chosen = {}
    for method, trials in plan.trials.items():
        losses = {}
        for number, setting in enumerate(trials.settings, start=1):
            name = f"{method}, trial {number}"
            figures = results[name].get(method, {})
            if "missing" not in figures:
                losses[name] = (figures["validation_loss"], setting)
        if losses:
            name = min(losses, key=lambda name: losses[name][0])
            chosen[method] = (losses[name][1], name)
    return chosen


def _second(
    task: _Task,
    plan: Plan,
    chosen: Mapping[str, tuple[dict[str, Any], str]],
    results: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """The other seeds of the chosen settings, and the small model's fine-tuning."""
    jobs: dict[str, Job] = {}
    for method, (setting, _) in chosen.items():
        for seed in SEEDS[1:]:
            recipe = task.recipe(method, seed, setting, plan.trials[method].steps)
            jobs[f"{method}, seed {seed}"] = task.training(method, recipe)
    small = results["small model"]["scratch"]
    if "missing" not in small:
        import yaml

        raw = yaml.safe_load((FOLDER / SCRATCH / "params.yaml").read_text(encoding="utf-8"))
        for seed in SEEDS:
            recipe = raw["finetune"]["scratch"] | {"seed": seed}
            jobs[f"scratch, seed {seed}"] = task.training("scratch", recipe, SCRATCH, small["base"])
    return _run(jobs, task)


def _run(jobs: Mapping[str, Job], task: _Task) -> dict[str, dict[str, Any]]:
    """Name of a job -> its rows; jobs whose result is kept do not run again."""
    keys = dict(zip(jobs, _keys(list(jobs.values()), task), strict=True))
    left = {name: key for name, key in keys.items() if not (RESULTS / f"{key}.json").is_file()}
    if left:
        with contextlib.chdir(FOLDER):
            beside({name: [_JOB, key, json.dumps(jobs[name])] for name, key in left.items()}, cores())
    return {name: files.read_json(RESULTS / f"{key}.json") for name, key in keys.items()}


def _keys(jobs: Sequence[Job], task: _Task) -> list[str]:
    """A fingerprint of everything that decides each job's result."""
    folders = (*AXES.values(), "evaluation", "data/sources", "data/formats")
    parts = {folder: plugins.choices(folder) for folder in folders}
    shared = {
        "code": closure.code([_JOB], parts),
        "samples": files.sha256_of(FOLDER / SAMPLES),
        "base": task.base.sha256,
        "compute": task.params["compute"],
        "torch": importlib.metadata.version("torch"),
    }
    text = json.dumps(shared, sort_keys=True)
    return [hashlib.sha256((text + json.dumps(job, sort_keys=True)).encode()).hexdigest()[:32] for job in jobs]


# -- facts about the model --------------------------------------------------------------------------------------------


def _config(base: Base) -> dict[str, Any]:
    raw: dict[str, Any] = files.read_json(base.folder / "config.json")
    return raw


def _context(base: Base) -> int:
    return _size(base, ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 512)


def _width(base: Base) -> int:
    return _size(base, ("hidden_size", "n_embd", "d_model", "dim"), 384)


def _size(base: Base, names: Sequence[str], otherwise: int) -> int:
    raw = _config(base)
    return next((int(raw[name]) for name in names if isinstance(raw.get(name), int)), otherwise)


def _template(vocabulary: Tokenizer) -> str:
    """The template that recipes train on: our own markers where the vocabulary has them, else plain headings."""
    return "chat" if "<|assistant|>" in vocabulary.special else "alpaca"


def _words(task: _Task) -> int:
    """Passes of a labelled text for its label words; 0 for answers."""
    if task.kind != "labelled":
        return 0
    import pyarrow.parquet as pq

    table = pq.ParquetFile(FOLDER / SAMPLES / "labelled" / "train.parquet").read(columns=["label"])
    labels = sorted(set(table["label"].to_pylist()))
    return 1 if all(len(task.vocabulary.encode(f" {label}")) == 1 for label in labels) else len(labels)


def _short(reason: str) -> str:
    return reason.partition("; ")[0].removeprefix("params.yaml: ").removeprefix("finetune.probe.")


# -- rows and tables --------------------------------------------------------------------------------------------------


def _rows(
    task: _Task, plan: Plan, chosen: Mapping[str, tuple[dict[str, Any], str]], results: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """Every method of the comparison, measured or with the reason why not."""
    rows = []
    if task.kind == "labelled":
        rows += [_row(name, [results["TF-IDF"][name]]) for name in SIMPLE["labelled"]]
    rows.append(_row("neighbours", [results["neighbours"]["neighbours"]]))
    for name in PROMPTS.values():
        if task.base.generates:
            rows.append(_row(name, [results[name][name]]))
        else:
            rows.append(Row(name, missing=f"no language head ({task.base.family} is an encoder)"))
    for method in ("lora", "full"):
        if method in chosen:
            setting, trial = chosen[method]
            seeds = [results[trial][method], *(results[f"{method}, seed {seed}"][method] for seed in SEEDS[1:])]
            rows.append(_row(method, seeds, _setting_in_words(setting, seeds, plan, method)))
        else:
            failed = results.get(f"{method}, trial 1", {}).get(method, {}).get("missing", "")
            rows.append(Row(method, missing=plan.left_out.get(method) or _short(failed)))
    small = results["small model"]["scratch"]
    if "missing" in small:
        rows.append(Row("scratch", missing=_short(small["missing"])))
    else:
        seeds = [results[f"scratch, seed {seed}"]["scratch"] for seed in SEEDS]
        rows.append(_row("scratch", seeds, "the small model of a try, pretrained on these texts", small["seconds"]))
    return rows


def _row(name: str, seeds: Sequence[Mapping[str, Any]], note: str = "", more_s: float = 0.0) -> Row:
    """A row from the figures of its seeds."""
    if missing := next((seed["missing"] for seed in seeds if "missing" in seed), ""):
        return Row(name, missing=_short(missing))
    return Row(
        name,
        tuple(seed["values"][0] for seed in seeds),
        tuple(np.mean([seed["by_record"] for seed in seeds], axis=0).tolist()),
        seconds=float(np.mean([seed["seconds"] for seed in seeds])) + more_s,
        peak_memory_mib=max(seed["peak_memory_mib"] for seed in seeds),
        trained=seeds[0]["trained"],
        note=note or seeds[0]["note"],
        seedless=seeds[0]["seedless"],
    )


def _setting_in_words(setting: Mapping[str, Any], seeds: Sequence[Mapping[str, Any]], plan: Plan, method: str) -> str:
    """`rank 8, learning rate 0.003, 2.4 epochs; best of 4 on validation`."""
    rank = f"rank {setting['rank']}, " if "rank" in setting else ""
    epochs = float(np.mean([seed["epochs"] for seed in seeds]))
    tried = len(plan.trials[method].settings)
    searched = f"best of {tried} settings on validation" if tried > 1 else "no search, by the budget"
    return f"{rank}learning rate {setting['learning_rate']:g}, {epochs:.2g} epochs; {searched}"


def _print_plan(plan: Plan, found: Speed) -> None:
    """The expected duration, and the trainings."""
    trainings = sum(len(trials.settings) + len(SEEDS) - 1 for trials in plan.trials.values())
    updates = ", ".join(
        f"{method} {getattr(found, method):.2g} s" for method in plan.trials if getattr(found, method) is not None
    )
    limits = plan.limits
    print(
        f"{limits.records:,} training and {limits.held_out:,} held-out records of up to {limits.max_tokens} tokens; "
        f"batches of {limits.batch_size}; an update takes {updates or 'too long'}\n"
        f"expected duration: {speed.words(plan.seconds)} for {trainings} trainings and the prompts, beside the small "
        "model's",
        flush=True,
    )


def _show(task: _Task, rows: Sequence[Row], recommended: Recommendation) -> None:
    """Prints the table and the sentences."""
    console = Console()
    console.print(table(rows, recommended, task.score, task.limits.held_out))
    full = f"(cd {FOLDER} && dvc repro && tohum which)"
    paragraphs = [
        "CPU seconds are of one seed, training and held-out records together. A method is better than the simple ones "
        "where chance alone would show such a lead over each of them in at most 5 % of repetitions.",
        f"A few updates predict the ranking, no final score. The full run is {FOLDER}/params.yaml: {full}; `which` "
        "then scores this prediction.",
        recommended.sentence,
    ]
    console.print("\n\n".join(paragraphs), highlight=False, markup=False)


def table(rows: Sequence[Row], recommended: Recommendation, score: str, records: int) -> Table:
    """Score with interval and spread, verdict and cost of every method; the reason where it was not measured."""
    scale, digits = (100, 1) if score == "chrf" else (1, 3)
    shown = Table(title=f"{score}, {records:,} held-out records")
    for name in ("method", "mean", "95 %", "spread", "beside the simple", "CPU s", "MiB", "trained weights"):
        shown.add_column(name, no_wrap=True)
    shown.add_column("settings", overflow="fold")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        ends = after is not None and row.simple and not after.simple
        if row.missing:
            shown.add_row(row.name, "", "", "", "", "", "", "", row.missing, end_section=ends, style="dim")
            continue
        low, high = (f"{scale * bound:.{digits - 1}f}" for bound in row.interval)
        spread = f"{np.std(row.values, ddof=1) * scale:.{digits}f}" if len(row.values) > 1 else ""
        shown.add_row(
            row.name, f"{row.mean * scale:.{digits}f}", f"{low} to {high}",
            spread, recommended.verdicts.get(row.name, ""), f"{row.seconds:.0f}" if row.seconds >= 1 else "< 1",
            f"{row.peak_memory_mib:.0f}", f"{row.trained:,}", row.note, end_section=ends,
            style="bold" if row.name == recommended.take else "",
        )  # fmt: skip
    return shown


def _write_project(task: _Task, chosen: Mapping[str, tuple[dict[str, Any], str]], plan: Plan) -> None:
    """Writes the full run into the comparison's params.yaml: the chosen settings, twice the updates, five seeds."""
    raw = dict(task.params)
    raw["finetune"], raw["evaluations"] = {}, {"base": raw["evaluations"]["base"]}
    judged = comparison_project.evaluation(
        task.kind, task.score, task.limits.answer_tokens, None if task.kind == "labelled" else task.limits.held_out
    )
    for method, (setting, _) in chosen.items():
        for seed in range(1, 6):
            raw["finetune"][f"{method}-s{seed}"] = task.recipe(method, seed, setting, plan.trials[method].steps * 2)
            raw["evaluations"][f"{method}-s{seed}"] = judged
    comparison_project.write(raw)


def _keep_prediction(data: Path, task: _Task, rows: Sequence[Row], recommended: Recommendation) -> None:
    """Keeps ranking, scores and recommendation, here and in the project that can be run in full."""
    ranked = sorted((row for row in rows if row.values), key=lambda row: -row.mean)
    prediction = {
        "data": data.name, "score": task.score, "ranking": [row.name for row in ranked], "base": str(task.base.folder),
        "means": {row.name: row.mean for row in ranked}, "take": recommended.take,
        "fine_tune": recommended.fine_tune,
    }  # fmt: skip
    for path in (PREDICTION, FOLDER / PREDICTION):
        files.write_json(path, prediction)
