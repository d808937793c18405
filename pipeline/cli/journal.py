"""Shows, exports, erases or delivers requests and ratings.

The server keeps requests of people who consented, and ratings, in the folder journal/.

status counts them, without a text. export FILE writes all that people allowed to be kept into a file below inputs/,
which a source `journal` of params.yaml reads. erase USER takes a person's requests and ratings out and
names the files of inputs/ that still hold them; USER is a pseudonym, or KEY/USER: the name of an API key
and the `user` of its requests, which stands alone for a server without keys. deliver sends requests and
ratings to MLflow as traces and assessments, once each; the server's own sender does so while it runs.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._command import UserPath, spoken, verb

if TYPE_CHECKING:
    from pipeline.data.journal import Journal

GROUP = "Use a model"
ORDER = 35
_SHOWN = 20


@verb(
    "tohum journal status",
    "tohum journal export inputs/ratings-1.jsonl",
    "tohum journal erase web/ayse",
    "tohum journal deliver",
)
@click.argument("action", type=click.Choice(["status", "export", "erase", "deliver"]))
@click.argument("target", required=False, metavar="[FILE|USER]")
@click.option("--keep", is_flag=True, help="Export a file that may be thrown away: the journal lets no rating go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option("--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds for deliver.")
def command(action: str, target: str | None, keep: bool, as_json: bool, timeout: float) -> int:
    """Runs one of the actions."""
    if (target is not None) != (action in ("export", "erase")):
        raise click.UsageError(f"{action} {'takes no argument' if target else 'needs a FILE or a USER'}")
    if keep and action != "export":
        raise click.UsageError(f"--keep is an option of export, not of {action}")
    if action == "export":
        return _export(UserPath().convert(target, None, click.get_current_context()), keep, as_json)
    if action == "erase":
        return _erase(str(target), as_json)
    if action == "deliver":
        return _deliver(timeout)
    return _status(as_json)


def _deliver(timeout: float) -> int:
    """Delivers to the MLflow of params.yaml, also where no server has said yet where the journal goes."""
    from pipeline import config
    from pipeline.tracking import sender
    from pipeline.tracking.journal_box import announce

    tracking = config.load().runtime.tracking
    if tracking.enabled:
        announce(tracking.uri, tracking.experiment)
    return sender.drain(timeout_s=timeout)


def _status(as_json: bool) -> int:
    """Prints the counts; exits with 1 where a line is damaged."""
    from pipeline.data.journal_status import status
    from pipeline.paths import JOURNAL

    found = status(JOURNAL)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return 1 if found.damaged else 0
    consents = ", ".join(f"{n:,} {name}" for name, n in found.consents.items()) or "none"
    forms = ", ".join(f"{n:,} {name}" for name, n in found.ratings.items()) or "none"
    click.echo(f"requests   {found.requests:,} of {found.users:,} users; consent: {consents}")
    click.echo(
        f"ratings    {forms}; {found.superseded:,} superseded or taken back; {found.not_exported:,} not exported"
    )
    click.echo(f"labels     {found.labels:,}")
    click.echo(f"erasures   {found.erasures:,}")
    click.echo(f"time       {found.oldest or 'no entry yet'}" + (f" to {found.latest}" if found.latest else ""))
    click.echo(f"size       {found.bytes:,} bytes in {found.files} files of {JOURNAL}")
    for line in found.damaged[:_SHOWN]:
        click.echo(f"error: {line}", err=True)
    return 1 if found.damaged else 0


def _export(path: Path, keep: bool, as_json: bool) -> int:
    """Writes a snapshot and marks its ratings as exported, unless `keep`."""
    from pipeline.data import snapshot
    from pipeline.errors import UserError
    from pipeline.paths import INPUTS, JOURNAL

    if path.suffix != ".jsonl" or not path.resolve().is_relative_to(INPUTS.resolve()):
        raise UserError(f"{path}: expected a file {INPUTS}/NAME.jsonl, where DVC and the stage download see it")
    if path.exists():
        raise UserError(f"{path}: is there already; a run may depend on it: write another file, or delete it first")
    journal = _opened()
    written = snapshot.write(JOURNAL, path)
    if not keep:
        journal.append(snapshot.mark(written))
    if as_json:
        click.echo(json.dumps(asdict(written) | {"path": path.as_posix()}, indent=1))
        return 0
    click.echo(f"{path}: {written.requests:,} requests, {written.ratings:,} ratings, {written.labels:,} labels")
    click.echo(f"  dvc add {path}  and a source {{name: journal, path: {path}, ...}} in params.yaml, then `dvc repro`")
    return 0


def _erase(user: str, as_json: bool) -> int:
    """Takes a user out of the journal; exits with 1 for an unknown one, or while a file of inputs/ holds them."""
    from pipeline.data import journal, snapshot
    from pipeline.data.pseudonyms import full_name
    from pipeline.paths import INPUTS, JOURNAL

    name = user if journal.is_pseudonym(user) else journal.pseudonym(full_name(user), journal.secret())
    known = any(entry["user"] == name for entry in journal.read(JOURNAL, kinds=("erasure",)))
    erased = _opened().erase(name)
    left = snapshot.holders(INPUTS, name)
    if as_json:
        held = {path.as_posix(): lines for path, lines in left}
        click.echo(json.dumps({"user": name, "erased": erased, "still_in": held}, indent=1))
        return 1 if left or not (erased or known) else 0
    if not (erased or known):
        click.echo(
            f"error: {user}: no entry is of this user ({name}); expected a pseudonym, KEY/USER, or USER of a server "
            "without keys, as requests give it in `user`",
            err=True,
        )
        return 1
    click.echo(f"{name}: {erased:,} entries erased; MLflow's traces of them go with the next delivery")
    for path, lines in left:
        shown = ", ".join(map(str, lines[:_SHOWN])) + (" and more" if len(lines) > _SHOWN else "")
        click.echo(f"still in {path}: lines {shown}")
    if left:
        click.echo(
            f"Take these lines out, or export anew and remove the old files; then `dvc repro`. What a run has read "
            f"already: `{spoken('forget')} --file ROWS --apply`, where a row is the file's name and line, as in "
            f"{left[0][0].name}:{left[0][1][0]}"
        )
    return 1 if left else 0


def _opened() -> "Journal":
    """The project's journal, without its size bound: only the server drops entries."""
    from pipeline.data.journal import UNBOUNDED, Journal
    from pipeline.paths import JOURNAL

    return Journal(JOURNAL, UNBOUNDED, 0)
