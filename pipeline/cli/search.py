"""Searches a recipe's settings with optuna: `python -m pipeline.cli.search RECIPE`, then `--apply` for the winner."""

import argparse
import sys
from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import config
from pipeline.config import edit
from pipeline.entry import entry
from pipeline.model import checkpoint
from pipeline.paths import MODELS, TOKENIZER
from pipeline.studies.search import Search, Start
from pipeline.training import start as starts

SHOWN = 5


def main() -> None:
    """Runs the trials that are left and shows the best, or writes the winner into params.yaml."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.cli.search",
        description="Tries values from params.yaml's `search.RECIPE.space` for a recipe; lowest validation loss wins.",
        epilog="A search that was stopped goes on where it was, as long as params, data, start model and code stay.",
    )
    parser.add_argument("recipe", nargs="*", help="an entry of `search` in params.yaml")
    parser.add_argument("--apply", action="store_true", help="write the winner's values into params.yaml, run nothing")
    options = parser.parse_args()
    params = config.load()
    name = config.choice("search", options.recipe, list(params.search))
    search = Search(name, params, lambda recipe: start(name, recipe))
    if options.apply:
        apply(search)
        return
    try:
        search.run()
    except KeyboardInterrupt:
        print(f"error: interrupted; the next `make search RECIPE={name}` continues", file=sys.stderr)
        sys.exit(130)
    show(search)


def start(name: str, recipe: Any) -> Start:
    """How a recipe, or `base`, begins: as its stage says."""
    if name == "base":
        load, inputs = starts.start(recipe)
        return Start("documents", load, inputs, TOKENIZER)
    load, inputs = starts.finetune_start(recipe)
    return Start(recipe.data, load, inputs, MODELS / recipe.start, lambda: checkpoint.load(MODELS / recipe.reference))


def apply(search: Search) -> None:
    """Writes the winner, shows the change and what it makes stale."""
    from pipeline.orchestration import plan

    best = search.best()
    values = {f"{search.space.where}.{path}": value for path, value in best.values.items()}
    difference = edit.change(config.PARAMS, values)
    missing = search.settings.trials - len(search.trials())
    print(f"{search.title}: trial {best.number}, {best.loss:.4f} nats" + f"; {missing} trials to go" * (missing > 0))
    print(difference or "params.yaml says so already")
    plan.main([])


def show(search: Search) -> None:
    """The best trials, and how all of them ended."""
    trials = search.trials()
    best = sorted((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.loss)
    table = Table("trial", "loss, nats", *search.space.dimensions, "seconds", title=search.title)
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
    search.best()  # says why there is none
    console.print(f"make search RECIPE={search.space.name} APPLY=1 writes trial {best[0].number} into params.yaml")


if __name__ == "__main__":
    entry(main)
