"""A round of `tohum rate`: opens the model and the file, runs the session, says what comes next."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

import click

from pipeline import config
from pipeline.cli._command import spoken
from pipeline.config.params import Params
from pipeline.data.pseudonyms import full_name, pseudonym, secret
from pipeline.paths import INPUTS, MODELS, PARAMS, SAMPLES
from pipeline.rating import next_round, prompts, ratings_file
from pipeline.rating.deciding import Decider, Function, Person
from pipeline.rating.pairs import Model, key_of
from pipeline.rating.session import Outcome, Session, Settings
from pipeline.wording import Words, read

_WORDS = Path(ratings_file.__file__).parent / "words"


@dataclass(frozen=True)
class Round:
    """The options of a round."""

    model: str
    """A folder below models/, or models:/NAME@ALIAS."""
    texts: Sequence[str] | None
    """The user's prompts; None: those of the training records."""
    path: Path | None
    function: Function | None
    """Decides in place of a person."""
    rater: str
    settings: Settings
    said: tuple[str, ...] = ()
    """The other options of the command, as words, with which the same round is continued."""


def words_of(params: Params) -> Words:
    """The words of the language that params.yaml names."""
    return read(_WORDS / f"{params.report.language}.yaml", params.report.language)


def rate(wanted: Round, write: bool, said: IO[str], shown: IO[str]) -> int:
    """Rates until the round is complete or the person quits; returns the exit code.

    Args:
        wanted: the options.
        write: whether source and recipe are then added to params.yaml.
        said: a person's answers, one a line.
        shown: prompts and answers for a person.

    Raises:
        UserError: a model without answers in text, a file of another round, no prompts, a rating that is not kept.
    """
    params = config.load()
    words, model = words_of(params), _model(wanted.model, params)
    path = wanted.path or ratings_file.round_path(INPUTS, model.sha256)
    asked = _prompts(wanted, path, params)
    function = wanted.function
    rater = pseudonym(full_name(wanted.rater), secret()) if function is None else function.rater
    decider: Decider = Person(words, said, shown) if function is None else function
    with ratings_file.opened(path, model, rater, "store" if function is None else "synthetic") as file:
        session = Session(model, asked.prompts, file, decider, _with_judged(wanted.settings))
        click.echo(words("rate.opening", model=wanted.model, path=path, rater=rater), err=True)
        if file.ratings:
            click.echo(words.count("rate.continued", len(file.ratings)), err=True)
        if asked.left_out:
            click.echo(words.count("rate.left_out", asked.left_out), err=True)
        outcome = session.run()
    for line in told(outcome, wanted.settings.count, path, words):
        click.echo(line)
    if outcome.rated:
        steps = [] if outcome.ended != "quit" else [(_again(wanted, path, wanted.settings.count), "continue")]
        if write:
            added = next_round.add(path, model.name, model.sha256)
            click.echo(words("rate.written", params=PARAMS, **asdict(added)))
        else:
            steps.append((f"{_again(wanted, path, outcome.rated)} --write", "write"))
        click.echo(_next(steps, path, f"{model.name}-{path.stem}", words))
    return 1 if outcome.ended == "prompts" else 0


def told(outcome: Outcome, count: int, path: Path, words: Words) -> list[str]:
    """The state of the round in words."""
    numbers = {name: words.integer(getattr(outcome, name)) for name in ("rated", "choices", "ties", "corrections")}
    lines = ["", words("rate.result", path=path, count=words.integer(count), **numbers)]
    if outcome.skipped:
        lines.append(words.count("rate.skipped", outcome.skipped))
    if outcome.equal:
        lines.append(words.count("rate.equal", outcome.equal))
    if outcome.ended == "prompts":
        lines.append(words("rate.no_prompts"))
    return lines


def _again(wanted: Round, path: Path, count: int) -> str:
    """The command that continues the round: other options would ask about other answers, or for another person."""
    return spoken(shlex.join(["rate", wanted.model, "--to", path.as_posix(), *wanted.said, "--count", str(count)]))


def _next(first: list[tuple[str, str]], path: Path, recipe: str, words: Words) -> str:
    """The next steps: each a command, and what it does."""
    steps = [
        *first,
        (f"dvc add {path.as_posix()}", "track"),
        (spoken("plan") + " && dvc repro", "repro"),
        (spoken("register") + " && " + spoken(f"review {recipe}"), "review"),
        (spoken(f"rate {recipe}"), "again"),
    ]
    width = max(len(step) for step, _ in steps)
    return "\n".join([words("rate.next"), *(f"  {step:<{width}}  {words(f'rate.{key}')}" for step, key in steps)])


def _with_judged(settings: Settings) -> Settings:
    judged = frozenset(key_of(asked, texts) for asked, texts in prompts.judged_pairs(SAMPLES))
    return replace(settings, judged=judged)


def _model(name: str, params: Params) -> Model:
    if not name.startswith("models:/"):
        return Model.read(MODELS / name)
    from pipeline.registry import download

    return Model.read(download(name, params))


def _prompts(wanted: Round, path: Path, params: Params) -> prompts.Chosen:
    if wanted.texts is not None:
        return prompts.of_texts(wanted.texts, SAMPLES)
    return prompts.of_records(SAMPLES, params.split, wanted.settings.seed, path.stem)
