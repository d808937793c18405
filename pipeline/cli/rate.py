"""Rates pairs of a model's answers: which of two is better.

MODEL is a folder below models/, or models:/NAME@ALIAS of the registry. Its answers are drawn with different seeds.
Keys, each with Enter: 1, 2, t(ie), c(orrection, typed), s(kip), u(ndo), q(uit); in Turkish also b, d, a, g, ç. Answers
may come from a pipe, one a line. Every rating is on disk at once in a file below inputs/, one file a round, in the
format of `tohum journal export`; the same command continues an unfinished round.

--by FILE.py lets a function rate(prompt, first, second) decide, which returns 0, 1 or "tie". --write adds the round to
params.yaml: a source `journal`, and a recipe that learns from the ratings (loss dpo), which `dvc repro` trains.
"""

import getpass
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from pipeline.cli._command import UserPath, shown, verb

GROUP = "Use a model"
ORDER = 33
AGAIN = "every rating is kept; the same command continues"


@verb(
    "tohum rate chat-lora --count 50",
    "tohum rate chat-lora --prompts questions.txt --to inputs/ratings-ayse.jsonl --rater ayse",
    "tohum rate chat-lora --by judge.py --count 1000 --write",
)
@click.argument("model")
@click.option(
    "--prompts",
    default="records",
    metavar="FILE|records",
    help="records: prompts of the training split; else a txt, csv, jsonl or parquet file.",
)
@click.option("--column", default="prompt", show_default=True, help="Column of the prompts in a table.")
@click.option("--count", type=click.IntRange(min=1), default=50, show_default=True, help="Ratings of the round.")
@click.option("--to", "path", type=UserPath(), help="The round's file; default: inputs/ratings-<n>.jsonl.")
@click.option("--by", type=UserPath(), metavar="FILE.py", help="A function decides instead of a person.")
@click.option("--rater", help="Your name, of which the file has the pseudonym; default: the user of the computer.")
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--top-k", type=click.IntRange(min=0), default=0, help="Draw from the K likeliest tokens; 0: from all.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Tokens of this mass.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens of an answer.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the prompts' order and the draws.")
@click.option("--write", is_flag=True, help="Afterwards, add the source and a recipe to params.yaml.")
def command(  # noqa: PLR0913 - each is an option
    model: str,
    prompts: str,
    column: str,
    count: int,
    path: Path | None,
    by: Path | None,
    rater: str | None,
    temperature: float,
    top_k: int,
    top_p: float,
    max_tokens: int,
    seed: int,
    write: bool,
) -> int:
    """Rates a round; exits with 1 where no prompt is left before it is complete."""
    from pipeline.cli.chat import require_model

    require_model(model)
    from pipeline.cli._rating import Round, rate
    from pipeline.inference.answers import Sampling
    from pipeline.rating.deciding import Function
    from pipeline.rating.session import Settings

    if by is not None and rater is not None:
        raise click.UsageError("--rater names a person; with --by the function's file is the rater")
    settings = Settings(count, Sampling(max_tokens, temperature, top_k, top_p), seed)
    texts = None if prompts == "records" else _texts(prompts, column)
    function = None if by is None else Function.of(by)
    person = rater or getpass.getuser()
    return rate(Round(model, texts, path, function, person, settings, _said()), write, sys.stdin, sys.stdout)


def _said() -> tuple[str, ...]:
    """The options that were given and decide about the round, as words; its length and --write left out."""
    context = click.get_current_context()
    words: list[str] = []
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("model", "path", "count", "write"):
            value = context.params[name]
            words += [option.opts[0], shown(value) if isinstance(value, Path) else str(value)]
    return tuple(words)


def _texts(prompts: str, column: str) -> list[str]:
    """The prompts of a file."""
    from pipeline.cli._texts import read_texts

    return read_texts(UserPath().convert(prompts, None, click.get_current_context()), column, "id")[0]
