"""Makes a reviewed version the champion.

The decision, with your reason, is an entry of the ledger. VERSION and --sha256 are printed by `tohum review MODEL`: the
approval is of exactly these files. MODEL is a model of this project, or models:/NAME, any registered model. Of several
people who decide at the same time one does; the others are told.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 53


@verb(
    'tohum promote spam-lora 3 --sha256 0f4e...c1 --reason "2 points better on every source"',
    'tohum promote models:/fraud 7 --sha256 9a1b...04 --reason "audit of 3 May"',
)
@click.argument("model")
@click.argument("version")
@click.option("--sha256", required=True, metavar="HASH", help="The version_sha256 you approve, as the review shows it.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the decision.")
@click.option(
    "--despite",
    default="",
    metavar="TEXT",
    help="Why it is approved although the policy is not met or it was rejected; kept too.",
)
@click.option("--via", default="", hidden=True)
def command(  # noqa: PLR0913 - each is an option
    model: str, version: str, sha256: str, reason: str, despite: str, via: str
) -> None:
    """Moves the alias if the version's files are the approved ones."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        by = registry.person(via)
        champion = registry.promote(
            model,
            version,
            sha256,
            reason,
            despite=despite,
            policy=lambda: registry.judge(model, version, sha256),
            by=by,
        )
        click.echo(f"{champion.name}: version {champion.version} is the champion")
