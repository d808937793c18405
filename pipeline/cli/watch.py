"""Watches a served model: drift of its requests, and worse answers.

Compares the newest requests with the records that the model was evaluated on, and labels and ratings that arrived later
with the reviewed accuracy. Input drift alone is a warning; an alarm needs evidence that answers became worse. Writes
reports/watch/MODEL.html and exits with 3 where it reports a new alarm, otherwise with 0.
"""

import json
import time
from pathlib import Path

import click

from pipeline.cli._command import UserPath, shown, verb

GROUP = "Use a model"
ORDER = 34
ALARM = 3
"""Exit code of a new alarm."""


@verb(
    "tohum watch spam-lora",
    "tohum watch spam-lora --labels labels.csv",
    "tohum watch spam-lora --every 60",
    "tohum watch spam-lora --accept",
)
@click.argument("model", required=False)
@click.option(
    "--window", type=click.IntRange(min=30), default=500, show_default=True, help="Newest requests of a look."
)
@click.option(
    "--labels", type=UserPath(), help="CSV or JSONL file with the columns request and label, kept for later looks."
)
@click.option("--once", is_flag=True, help="Look once: the default.")
@click.option("--every", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Look again and again.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON for each look instead of words.")
@click.option("--mlflow", "from_mlflow", is_flag=True, help="Keep the labels that people gave to traces in MLflow.")
@click.option("--accept", is_flag=True, help="Make the newest requests the reference of inputs from now on.")
def command(  # noqa: PLR0913 - each is an option
    model: str | None, window: int, labels: Path | None, once: bool, every: float | None, as_json: bool,
    from_mlflow: bool, accept: bool,
) -> int:  # fmt: skip
    """Looks once, or again and again."""
    from pipeline import watching
    from pipeline.errors import UserError
    from pipeline.watching import evidence

    if once and every is not None:
        raise click.UsageError("--once and --every exclude each other")
    name = model or _only_model()
    if labels is not None:
        read = evidence.read_labels(labels)
        new = evidence.keep_labels(read, "file")
        click.echo(f"{shown(labels)}: {len(read)} labels, {new} of them new", err=as_json)
        if strange := len(read.keys() - evidence.observed_requests()):
            click.echo(f"  {strange} of them are of no observed request and count for nothing: is the column request "
                       "the id that the server answered?", err=as_json)  # fmt: skip
    if accept:
        count = watching.accept(name, window=window)
        click.echo(f"{name}: the newest {count} requests are the reference of inputs from now on")
        return 0
    if every is None:
        return _look(name, window, as_json, from_mlflow)
    while True:
        try:
            _look(name, window, as_json, from_mlflow)
        except UserError as error:  # too few requests yet, or a file that somebody is about to repair
            click.echo(f"error: {error}", err=True)
        time.sleep(every * 60)


def _look(model: str, window: int, as_json: bool, from_mlflow: bool) -> int:
    from pipeline import watching
    from pipeline.watching import evidence, in_words, publishing

    if from_mlflow:
        click.echo(f"MLflow: {evidence.keep_labels_of_mlflow()} new labels", err=as_json)
    found = watching.look(model, window=window)
    page = publishing.publish(found)
    if as_json:
        click.echo(json.dumps(found.plain(), ensure_ascii=False))
    else:
        click.echo(in_words.described(found))
        click.echo(f"  {shown(page)}")
    watching.announced(model, found.episode)
    return ALARM if found.verdict == "alarm" and found.new else 0


def _only_model() -> str:
    """The model that was served, where there is one alone."""
    from pipeline.errors import UserError
    from pipeline.paths import OBSERVATIONS
    from pipeline.watching.observations import read

    names = sorted({one.model for one in read(OBSERVATIONS)})
    if len(names) != 1:
        raise UserError(f"name the model to watch; one of: {', '.join(names) or 'none was served yet (tohum serve)'}")
    return names[0]
