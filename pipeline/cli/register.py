"""Registers the models whose gate passed as candidates.

Without names: the models of register.models in params.yaml. Outside the graph, after it. Refuses a stale graph, a gate
that did not pass, a waiver past its date, and bytes that differ from the evaluated ones. One version per content:
running it twice changes nothing.
"""

import click

from pipeline.cli._command import verb

GROUP = "Register and review models"
ORDER = 50


@verb("tohum register", "tohum register spam-lora chat-lora")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--sha256", "hashes", multiple=True, metavar="HASH",
              help="Register these bytes only; once for each MODEL, in order.")  # fmt: skip
def command(models: tuple[str, ...], hashes: tuple[str, ...]) -> None:
    """Admits and registers; a refused model does not stop the others, but sets the exit code."""
    if hashes and len(hashes) != len(models):
        raise click.UsageError(f"{len(hashes)} hashes for {len(models)} models; expected one --sha256 for each MODEL")
    register(list(models), dict(zip(models, hashes, strict=bool(hashes))) if hashes else {})


def register(models: list[str], approved: dict[str, str]) -> None:
    """Registers these models, or those of params.yaml; `approved`: model -> the only SHA-256 accepted for its folder.

    Raises:
        UserError: one was refused; the others are registered.
    """
    from pipeline import config
    from pipeline.errors import UserError
    from pipeline.paths import MODELS
    from pipeline.registry import admission
    from pipeline.tracking import sender

    params = config.load()
    models = models or list(params.register_.models)
    admission.require_models(models, params)
    admission.require_current(models)
    refused: list[str] = []
    admitted = []
    for model in models:
        try:
            facts = admission.admit(model, params)
            if facts.sha256 != approved.get(model, facts.sha256):
                raise UserError(
                    f"{model}: its sha256 is {facts.sha256}, approved was {approved[model]}; review it again"
                )
            admitted.append((model, facts))
        except UserError as error:
            refused.append(str(error))
    if admitted:
        sender.require_usable(params.runtime.tracking.uri)
        if params.runtime.tracking.enabled:
            sender.drain(timeout_s=60)
        from pipeline.cli._registry import opened

        with opened() as registry:
            for model, facts in admitted:
                version, new = registry.register(facts, MODELS / model)
                state = "registered" if new else "already there"
                click.echo(f"{version.name} version {version.version}: {state}, candidate, model sha256 {facts.sha256}")
    if refused:
        raise UserError("\nerror: ".join(refused))
