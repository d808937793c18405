"""Talks to a model of the graph or the registry.

MODEL is a folder below models/, or models:/NAME@ALIAS of the registry. A chat or instruction model keeps to its
template, a language model continues your text, a classifier names the label. End with Ctrl-D.
"""

from pathlib import Path

import click

from pipeline.cli._command import verb

GROUP = "Use a model"
ORDER = 30


@verb(
    "tohum chat chat-lora",
    "tohum chat models:/tohum-chat-lora@champion --temperature 0.8 --top-p 0.95",
    "echo 'Once upon a time' | tohum chat base --max-tokens 40",
)
@click.argument("model", default="chat-lora")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, help="0 gives the likeliest answer.")
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Draw from the K likeliest tokens; 0: from all.")
@click.option("--top-p", type=click.FloatRange(0, 1), default=1.0, help="Draw from the likeliest tokens of this mass.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens of an answer.")
@click.option("--seed", type=int, help="Repeats an answer; without one each differs.")
def command(  # noqa: PLR0913 - each is an option
    model: str, temperature: float, top_k: int, top_p: float, max_tokens: int, seed: int | None
) -> None:
    """Reads lines until the end of the input."""
    require_model(model)
    from pipeline.cli._talk import talk
    from pipeline.inference.answers import Sampling

    talk(model, Sampling(max_tokens, temperature, top_k, top_p), seed)


def require_model(model: str) -> None:
    """Raises UserError where models/ has no such model, before torch is loaded."""
    from pipeline.errors import UserError
    from pipeline.paths import MODELS

    if model.startswith("models:/") or (MODELS / model).is_dir():
        return
    names = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
    tries = "" if not Path(".tohum/try/models").is_dir() else "; a try's: tohum --project .tohum/try chat MODEL"
    raise UserError(f"models/{model}: no such model; one of: {', '.join(names) or 'none yet, run `make repro`'}{tries}")
