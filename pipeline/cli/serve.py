"""Serves models over HTTP as OpenAI's API, with a chat page.

MODEL is models:/NAME@champion (swapped when another version is promoted), models:/NAME/VERSION, or a folder below
models/, which no review has seen. Without one, every champion of the project is served. Settings: `serving` in
params.yaml.
"""

import click

from pipeline.cli._command import verb

GROUP = "Use a model"
ORDER = 31
AGAIN = "the server has ended"


@verb(
    "tohum serve",
    "tohum serve spam-lora chat-lora",
    "tohum serve models:/tohum-chat-lora@champion --port 8200",
    "tohum serve --new-key ada",
)
@click.argument("models", nargs=-1)
@click.option("--port", type=click.IntRange(0, 65535), help="Instead of serving.port.")
@click.option("--new-key", metavar="NAME", help="Make an API key, print it once, and serve nothing.")
@click.option("--revoke-key", metavar="NAME", help="Remove an API key, and serve nothing.")
def command(models: tuple[str, ...], port: int | None, new_key: str | None, revoke_key: str | None) -> None:
    """Serves until SIGTERM or Ctrl-C."""
    from pathlib import Path

    from pipeline import config
    from pipeline.cli.chat import require_model

    params = config.load()
    if new_key or revoke_key:
        from pipeline.serving.keys import Keys

        keys = Keys(Path(params.serving.keys).expanduser())
        if revoke_key:
            keys.revoke(revoke_key)
        if new_key:
            click.echo(keys.add(new_key))
        return
    for model in models:
        require_model(model)
    from pipeline.serving.server import serve

    if port is not None:
        params = params.model_copy(update={"serving": params.serving.model_copy(update={"port": port})})
    serve(models, params)
