"""Applies profiles of infra/profiles to params.yaml, or lists them.

Without a name it lists them. params.yaml becomes the embedded default with the profiles in order, as `git diff` then
shows. Changes of your own are never overwritten without --force.
"""

import click

from pipeline.cli._command import verb

GROUP = "Run the pipeline"
ORDER = 11


@verb("tohum profile", "tohum profile embedded", "tohum profile files answers --force")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--force", is_flag=True, help="Overwrite changes of your own in params.yaml.")
def command(names: tuple[str, ...], force: bool) -> None:
    """Applies the named profiles, or lists all."""
    from pipeline.config import profiles

    if not names:
        click.echo("\n".join(profiles.available()))
        return
    profiles.apply(list(names), force=force)
    click.echo(f"params.yaml is now {' + '.join(names)}; see `git diff params.yaml` and `tohum plan`")
