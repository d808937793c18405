"""Shows the candidate's card beside the champion's numbers.

Ends with the command that approves exactly these files.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 52


@verb("tohum review spam-lora")
@click.argument("model")
def command(model: str) -> None:
    """Prints the review; every file was read and compared first."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        click.echo(registry.review(model))
