"""Applies profiles of infra/profiles to params.yaml, or lists them.

Without a name it lists them. params.yaml becomes the embedded default with the profiles in order, as `git diff` then
shows. Changes of your own are never overwritten without --force.
"""

from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Run the pipeline"
ORDER = 11


@verb(
    "tohum profile",
    "tohum profile embedded",
    "tohum profile files --data messages.csv",
    "tohum profile files answers --force",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--force", is_flag=True, help="Overwrite changes of your own in params.yaml.")
@click.option(
    "--data", type=UserPath(), metavar="FILE", help="With profile files: its source, and budgets for its data."
)
def command(names: tuple[str, ...], force: bool, data: Path | None) -> None:
    """Applies the named profiles, or lists all."""
    from pipeline.config import profiles

    if not names:
        click.echo("\n".join(profiles.available()))
        return
    if data is None:
        profiles.apply(list(names), force=force)
    else:
        if "files" not in names:
            raise click.UsageError("--data goes with profile files: tohum profile files --data FILE")
        from pipeline.studies import own_profile

        own_profile.apply(list(names), data, force)
    click.echo(f"params.yaml is now {' + '.join(names)}; see `git diff params.yaml` and `tohum plan`")
