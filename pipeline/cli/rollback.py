"""Gives the champion's alias back to the version before."""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 54


@verb("tohum rollback spam-lora")
@click.argument("model")
def command(model: str) -> None:
    """Moves the alias back."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        champion = registry.rollback(model)
        click.echo(f"{champion.name}: version {champion.version} is the champion")
