"""Results of a search: a table of its best trials, and the best one's values written into params.yaml."""

from collections import Counter

from rich.console import Console
from rich.table import Table

from pipeline import config
from pipeline.config import edit
from pipeline.orchestration import plan
from pipeline.studies.search import RecipeSearch

SHOWN = 5
"""Trials in the table."""


def apply(search: RecipeSearch) -> None:
    """Writes the best trial's values into params.yaml, prints the difference and the plan that follows.

    Raises:
        UserError: no trial is complete.
    """
    best = search.best()
    values = {f"{search.space.where}.{path}": value for path, value in best.values.items()}
    difference = edit.change(config.PARAMS, values)
    missing = search.settings.trials - len(search.trials())
    print(
        f"{search.title}: trial {best.number}, {search.figure} {best.loss:.4f}"
        + f"; {missing} trials to go" * (missing > 0)
    )
    print(difference or "params.yaml has these values already")
    plan.show()


def show(search: RecipeSearch) -> None:
    """Prints the best trials, and how all of them ended. Raises UserError if none is complete."""
    trials = search.trials()
    best = sorted((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.loss)
    table = Table("trial", search.figure, *search.space.dimensions, "seconds", title=search.title)
    for trial in best[:SHOWN]:
        values = [str(trial.values[path]) for path in search.space.dimensions]
        table.add_row(str(trial.number), f"{trial.loss:.4f}", *values, f"{trial.seconds:.1f}")
    console = Console()
    console.print(table)
    ends = Counter(trial.state for trial in trials)
    console.print(
        f"{len(trials)} trials: {ends['complete']} complete, {ends['pruned']} pruned, {ends['failed']} failed; "
        f"{sum(trial.seconds for trial in trials):.0f} s"
    )
    for trial in trials:
        if trial.reason:
            console.print(f"trial {trial.number} {trial.state}: {trial.reason}")
    search.best()  # raises with the reasons if there is none
    console.print(f"tohum search {search.space.name} --apply writes trial {best[0].number} into params.yaml")
