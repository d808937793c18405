"""Compares registered versions, or this project, with their hashes.

Without a version: the files of every version. With one: this project with it, from settings to model.

Without an argument the files of every version are read. With VERSION (models:/NAME/NUMBER, NAME/NUMBER or NAME@ALIAS)
also the project in the working folder: on another machine check out the version's commit and run `dvc pull` first.
Compared are commit, settings, code, every file of the data and models that the version was made from, and the model
itself. --replay also trains two stretches of the model anew, which gives equal bits on the same CPU model with as many
threads: the beginning, up to the first state whose hash its training recorded, and the updates between the two states
that it kept in models/NAME.states. The rest is not trained again. Exits with 1 where a
version is damaged or something differs; it is named.
"""

from typing import TYPE_CHECKING

import click

from pipeline.cli._command import verb

if TYPE_CHECKING:
    from pipeline.registry import Registry

GROUP = "Register and review models"
ORDER = 57


@verb("tohum verify", "tohum verify tohum-base/3", "tohum verify models:/tohum-spam-lora@champion --replay")
@click.argument("version", required=False)
@click.option("--replay", is_flag=True, help="Train two stretches of the version's model anew and compare its states.")
def command(version: str | None, replay: bool) -> int:
    """Prints a line per version, or one per difference of a single version."""
    from pipeline.cli._registry import opened

    if replay and version is None:
        raise click.UsageError("--replay needs a VERSION")
    with opened() as registry:
        return _all(registry) if version is None else _one(registry, version, replay)


def _all(registry: "Registry") -> int:
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


def _one(registry: "Registry", name: str, replay: bool) -> int:
    from pipeline.registry import VERSION
    from pipeline.studies import verification

    version = registry.find(name if name.startswith("models:/") else f"models:/{name}")
    sealed = registry.verify(version)
    click.echo(f"{version.name} version {version.version}: {VERSION} {sealed.version_sha256}")
    checks = list(verification.verify(version, registry.params))
    for check in checks:
        if check.differs:
            click.echo(f"differs: {check.what}: {check.differs}")
    differing = sum(bool(check.differs) for check in checks)
    state = f"{differing} differ" if differing else "all equal"
    click.echo(f"{len(checks)} comparisons from commit to model: {state}")
    if replay:
        differing += _replayed(version.tags["tohum.model"], registry)
    return 1 if differing else 0


def _replayed(model: str, registry: "Registry") -> int:
    """Trains both stretches anew and prints a line for each; returns how many differ."""
    from pipeline.training.kept import folder_of
    from pipeline.training.replay import replay, replay_stretch

    beginning = replay(model, registry.params)
    click.echo(
        f"differs: {beginning.sentence}"
        if beginning.sentence
        else f"replayed: equal bits after update {beginning.step}"
    )
    stretch = replay_stretch(model, registry.params)
    if stretch is None:
        click.echo(f"not replayed in the middle: {folder_of(model)} has fewer than two states")
        return bool(beginning.sentence)
    click.echo(
        f"differs: {stretch.sentence}"
        if stretch.sentence
        else f"replayed: equal bits from update {stretch.first} to {stretch.last}, {stretch.tensors} tensors"
    )
    return bool(beginning.sentence) + bool(stretch.sentence)
