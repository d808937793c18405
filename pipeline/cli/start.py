"""Fetches the champion as the start of the next training.

Prints the lines for params.yaml, the model pinned by its hash.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 55


@verb("tohum start base")
@click.argument("model")
def command(model: str) -> None:
    """Prints the settings, the model pinned by its hash."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        click.echo(registry.start(model))
