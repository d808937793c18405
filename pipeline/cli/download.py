"""Copies a version's files, checked, to a new folder.

Plain MLflow can load and serve it. MODEL is a model of the graph (its champion, else its candidate), models:/NAME@ALIAS
or models:/NAME/VERSION.
"""

from pathlib import Path

import click

from pipeline.cli._command import UserPath, verb

GROUP = "Register and review models"
ORDER = 56


@verb("tohum download spam-lora served", "tohum download models:/tohum-spam-lora/2 old")
@click.argument("model")
@click.argument("folder", type=UserPath())
def command(model: str, folder: Path) -> None:
    """Exports the version."""
    from pipeline.cli._registry import opened

    with opened() as registry:
        from pipeline.registry import CHAMPION, VERSION

        sealed = registry.export(model, folder)
        state = "" if registry.at(sealed.model, CHAMPION) else ", the candidate: not approved yet"
        click.echo(f"{folder}: {sealed.model}, {VERSION} {sealed.version_sha256}{state}")
