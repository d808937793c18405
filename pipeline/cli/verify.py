"""Compares the files of every version with their hashes.

Exits with 1 where a version is damaged; it is named.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 57


@verb("tohum verify")
def command() -> int:
    """Prints a line per version."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        from pipeline.errors import UserError
        from pipeline.registry import VERSION

        damaged = 0
        for version in [version for model in registry.models() for version in registry.versions(model)]:
            try:
                sealed = registry.verify(version)
                click.echo(f"{version.name} version {version.version}: {VERSION} {sealed.version_sha256}")
            except UserError as error:
                damaged += 1
                click.echo(f"error: {error}", err=True)
    return 1 if damaged else 0
