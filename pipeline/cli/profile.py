"""Applies profiles of infra/profiles to params.yaml, or lists them.

Without a name it lists them. params.yaml becomes the embedded default with the profiles in order, as `git diff` then
shows. Changes of your own are never overwritten without --force.
"""

from pathlib import Path
from typing import get_args

import click

from pipeline.cli._command import UserPath, verb
from pipeline.config.recipe import Kind

GROUP = "Run the pipeline"
ORDER = 11


@verb(
    "tohum profile",
    "tohum profile embedded",
    "tohum profile files --data messages.csv",
    "tohum profile files --data messages.csv --base inputs/minilm",
    "tohum profile files answers --force",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--force", is_flag=True, help="Overwrite changes of your own in params.yaml.")
@click.option("--data", type=UserPath(), multiple=True, metavar="DATA",
              help="With profile files: its source, and budgets for its data.")  # fmt: skip
@click.option("--base", type=UserPath(), metavar="FOLDER",
              help="With --data: a released model (tohum adopt) that a LoRA recipe starts from.")  # fmt: skip
@click.option("--text", metavar="COLUMN", help="With --data, as in `tohum try`.")
@click.option("--label", metavar="COLUMN", help="With --data, as in `tohum try`.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="With --data, as in `tohum try`.")
def command(  # noqa: PLR0913 - each is an option of the command line
    names: tuple[str, ...],
    force: bool,
    data: tuple[Path, ...],
    base: Path | None,
    text: str | None,
    label: str | None,
    kind: Kind | None,
) -> None:
    """Applies the named profiles, or lists all."""
    from pipeline.config import profiles

    if (data or base or text or label or kind) and not (data and "files" in names):
        raise click.UsageError("--data goes with profile files: tohum profile files --data FILE")
    if not names:
        click.echo("\n".join(profiles.available()))
        return
    if data:
        from pipeline.studies import own_profile
        from pipeline.studies.guess import Wishes, guess
        from pipeline.studies.released import read_base

        start = None if base is None else read_base(base)
        own_profile.apply(list(names), guess(data, Wishes(text, label, kind)), force, start)
    else:
        profiles.apply(list(names), force=force)
    click.echo(f"params.yaml is now {' + '.join(names)}; see `git diff params.yaml` and `tohum plan`")
