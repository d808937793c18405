"""Makes the reviewed candidate the champion.

VERSION and --sha256 are printed by `tohum review MODEL`: the approval is of exactly these files.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 53


@verb("tohum promote spam-lora 3 --sha256 0f4e...c1")
@click.argument("model")
@click.argument("version")
@click.option("--sha256", required=True, metavar="HASH", help="The version_sha256 you approve, as the review shows it.")
def command(model: str, version: str, sha256: str) -> None:
    """Moves the alias if the candidate's files are the approved ones."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        champion = registry.promote(model, version, sha256)
        click.echo(f"{champion.name}: version {champion.version} is the champion")
