"""Searches a recipe's settings; the lowest validation loss wins.

Tries values from `search.RECIPE.space` in params.yaml with optuna. A search that was stopped continues with the trials
that are left, as long as params, data, start model and code are the same.
"""

import sys

import click

from pipeline.cli._command import verb

GROUP = "Find better settings"
ORDER = 40
AGAIN = "finished trials are kept in .tohum/search.db; the same command continues with the trials that are left"


@verb("tohum search spam-lora", "tohum search spam-lora --apply")
@click.argument("recipe", required=False)
@click.option("--apply", is_flag=True, help="Write the best trial's values into params.yaml; run nothing.")
def command(recipe: str | None, apply: bool) -> None:
    """Runs the trials that are left and shows the best, or writes the best into params.yaml."""
    from pipeline.orchestration.process import under_guard

    under_guard("search", sys.argv[2:])
    from pipeline import config

    params = config.load()
    name = config.choice("search", [recipe] if recipe else [], list(params.search))
    from pipeline.studies import search_results
    from pipeline.studies.search import RecipeSearch

    search = RecipeSearch(name, params)
    if apply:
        search_results.apply(search)
        return
    search.run()
    search_results.show(search)
