"""The comparison that a user needs: every way from their records to answers, beside a released model, in one table.

Rows: the most frequent label, TF-IDF with logistic regression, nearest neighbours on the model's embeddings, the model
asked without and with examples, LoRA, full fine-tuning, and the small model of a try from scratch. Rank, learning rate
and epochs are chosen on the validation split, by as many trials as the budget has room for. The last sentence says
which method to take, or not to fine-tune.

The result is a prediction for the full run, which is the project in `.tohum/which` itself.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline import files
from pipeline.orchestration.process import cores
from pipeline.paths import WORK
from pipeline.reporting.recommendation import Recommendation, Row, recommend
from pipeline.studies import comparison_jobs, comparison_plan, comparison_project, comparison_table
from pipeline.studies.comparison_jobs import Subject
from pipeline.studies.comparison_plan import Plan
from pipeline.studies.comparison_project import FOLDER
from pipeline.studies.guess import Guess
from pipeline.studies.released import read_base

PREDICTION = WORK / "which.json"
_RECORDS_A_MINUTE, _MINUTES = 200, (1.0, 6.0)
"""Budget by the number of records, and its bounds in minutes."""
_SEEDS = range(1, 6)
"""Of the full run."""


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
    print(f"{data}: guessed\n" + "\n".join(f"  {sentence}" for sentence in guessed.sentences))
    base = read_base(folder.resolve())
    if minutes is None:
        minutes = round(min(_MINUTES[1], max(_MINUTES[0], guessed.rows / _RECORDS_A_MINUTE)), 1)
    print(
        f"{folder}: {base.described}\n"
        f"budget: about {minutes:g} min for trainings and prompts (--minutes), beside the data's stages",
        flush=True,
    )
    params = comparison_project.make(data, guessed, base)
    subject = comparison_jobs.subject_of(params, guessed.kind, base)
    speeds = comparison_jobs.measure_speed(subject)
    plan = comparison_plan.plan(subject.limits, speeds, subject.sizes, base.width, minutes * 60, cores(), subject.words)
    print(comparison_table.expectation(plan, speeds), flush=True)
    results = comparison_jobs.run(comparison_jobs.first_jobs(subject, plan), subject)
    chosen = comparison_jobs.chosen_trials(plan, results)
    results |= comparison_jobs.run(comparison_jobs.second_jobs(subject, plan, chosen, results), subject)
    rows = comparison_table.rows(subject, plan, chosen, results)
    recommended = recommend(rows, subject.score)
    _write_full_run(subject, plan, chosen)
    _keep_prediction(data, subject, rows, recommended)
    _show(subject, rows, recommended)
    return recommended


def _show(subject: Subject, rows: Sequence[Row], recommended: Recommendation) -> None:
    """Prints the table and the sentences."""
    console = Console()
    console.print(comparison_table.table(rows, recommended, subject.score, subject.limits.held_out))
    paragraphs = [
        "CPU seconds are of one seed, training and held-out records together. A method is better than the simple ones "
        "where chance alone would show such a lead over each of them in at most 5 % of repetitions.",
        f"Few updates predict the ranking, no final score. The full run, twice the updates and {len(_SEEDS)} seeds of "
        f"the trained methods, is {FOLDER}/params.yaml: cd {FOLDER} && dvc repro && tohum which. The last command "
        "then scores this prediction.",
        recommended.sentence,
    ]
    console.print("\n\n".join(paragraphs), highlight=False, markup=False)


def _write_full_run(subject: Subject, plan: Plan, chosen: Mapping[str, int]) -> None:
    """Writes the chosen settings into the comparison's params.yaml, with twice the updates and five seeds."""
    raw: dict[str, Any] = dict(subject.params)
    most = None if subject.kind == "labelled" else subject.limits.held_out
    judged = comparison_project.evaluation(subject.kind, subject.score, subject.limits.answer_tokens, most)
    raw["finetune"], raw["evaluations"] = {}, {"base": raw["evaluations"]["base"]}
    for method, number in chosen.items():
        trials = plan.trials[method]
        for seed in _SEEDS:
            recipe = subject.recipe(method, seed, trials.settings[number - 1], 2 * trials.steps)
            raw["finetune"][f"{method}-s{seed}"] = recipe
            raw["evaluations"][f"{method}-s{seed}"] = judged
    comparison_project.write(raw)


def _keep_prediction(data: Path, subject: Subject, rows: Sequence[Row], recommended: Recommendation) -> None:
    """Keeps ranking, scores and recommendation, in this project and in that of the full run."""
    ranked = sorted((row for row in rows if row.values), key=lambda row: -row.mean)
    prediction = {
        "data": data.name, "score": subject.score, "ranking": [row.name for row in ranked],
        "means": {row.name: row.mean for row in ranked}, "take": recommended.take,
    }  # fmt: skip
    for path in (PREDICTION, FOLDER / PREDICTION):
        files.write_json(path, prediction)
