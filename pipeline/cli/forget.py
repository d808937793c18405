"""Removes records: plan, cost, list and proof.

Shows what holds them and what retraining costs, leaves them out, proves that they are gone.

ROW is a record's id, its origin (file and line, as the column `origin` of data/raw has it), or the SHA-256 of its text;
duplicates, near duplicates, twins and questions made from it go with it. Without an option the plan is shown, and
nothing is changed.

--apply writes the ids to inputs/forget.txt (hashes, no text) and names the list in params.yaml; the next `dvc repro`
then trains without the records. --check reads all data, reports, kept results of measures, and every copy in DVC's
cache and in remotes that are folders. It exits with 1 while one still holds a listed record, a stage has not run on the
data as it is now, or a page or kept result that no stage writes anew is older.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli._command import UserPath, spoken, verb

if TYPE_CHECKING:
    from pipeline.studies.forgetting import Plan, Proof

GROUP = "Keep the project whole"
ORDER = 73
_SHOWN = 20


@verb(
    "tohum forget 3f2a9c0d11e84b57",
    "tohum forget mail.csv:812 --apply",
    "tohum forget --consent withdrawn --json",
    "tohum forget --check",
)
@click.argument("rows", nargs=-1, metavar="[ROW]...")
@click.option("--file", "listed", type=UserPath(), help="A file with one ROW a line.")
@click.option("--consent", metavar="VALUE", help="All records with this value in their column `consent`.")
@click.option("--exact", is_flag=True, help="Leave near duplicates as they are.")
@click.option("--apply", is_flag=True, help="Write the records to the list that download leaves out.")
@click.option("--check", is_flag=True, help="Look for the listed records everywhere; exit with 1 if one is left.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def command(  # noqa: PLR0913 - the options of one verb
    rows: tuple[str, ...],
    listed: Path | None,
    consent: str | None,
    exact: bool,
    apply: bool,
    check: bool,
    as_json: bool,
) -> int:
    """Plans, applies or checks."""
    from pipeline import config
    from pipeline.data.erasure import Wanted
    from pipeline.studies import forgetting

    asked = dict.fromkeys([*rows, *(_lines(listed) if listed else [])])
    if check == bool(asked or consent):
        raise click.UsageError("name at least one ROW, --file or --consent; or --check alone")
    params = config.load()
    if check:
        proof = forgetting.check(params)
        _print_proof(proof, as_json)
        return 0 if proof.holds else 1
    plan = forgetting.plan(Wanted(tuple(asked), consent, not exact), params)
    if not as_json:
        _print(plan)
    written = None
    if apply:
        path, new = forgetting.apply(plan, params)
        written = {"list": path.as_posix(), "new": new}
    if as_json:
        click.echo(json.dumps(plan.as_json() | {"applied": written}, indent=1, ensure_ascii=False))
    elif written:
        click.echo(f"\n{len(written['new'])} records added to {written['list']}. Next:")
        _next(str(written["list"]))
        for name in forgetting.pinned(plan, params):
            click.echo(
                f"  download.sources.{name}.sha256 pins answers about them: the next download names the new hash"
            )
    else:
        click.echo("\nNothing was changed; --apply leaves these records out.")
    return 1 if plan.not_found else 0


def _lines(path: Path) -> list[str]:
    """The rows of a file; blank lines and comments do not count."""
    from pipeline.errors import UserError

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable ({error}); expected a text file with one ROW a line") from None
    return [text for line in lines if (text := line.partition(" #")[0].strip()) and not text.startswith("#")]


def _print(plan: "Plan") -> None:
    """The plan in lines: records, places, models, stages, versions, and what it cannot reach."""
    from pipeline.studies import forgetting

    by_id = {place.id: place for place in plan.places}
    click.echo(f"{len(plan.records)} records to forget:")
    for record in plan.records[:_SHOWN]:
        place = by_id.get(record.id)
        where = "in no split" if place is None else place.split
        click.echo(f"  {record.id}  {record.kind:<12} {where:<11} {record.source}: {record.origin} ({record.why})")
    if len(plan.records) > _SHOWN:
        click.echo(f"  and {len(plan.records) - _SHOWN} more (--json lists all)")
    for row in plan.not_found:
        click.echo(f"not found: {row}")
    click.echo("models that have seen them:" if plan.learners else "no model has seen them")
    for learner in plan.learners:
        windows = ", ".join(f"{len(numbers)} {split}" for split, numbers in learner.windows.items())
        click.echo(f"  {learner.model}: {learner.how}" + (f"; windows: {windows}" if windows else ""))
    if states := forgetting.training_states(plan):
        click.echo(f"  kept training states with weights trained on them, replaced by retraining: {', '.join(states)}")
    seconds, energy = forgetting.cost(plan.reruns)
    unknown = [stage.stage for stage in plan.reruns if stage.seconds is None]
    click.echo(
        f"stages that run again: {len(plan.reruns)}, {seconds:,.0f} s and {energy:.2f} Wh by their last runs"
        + (f" (not recorded: {', '.join(unknown)})" if unknown else "")
    )
    click.echo("  " + ", ".join(stage.stage for stage in plan.reruns))
    _print_versions(plan)
    if places := forgetting.copies():
        click.echo(f"may hold their text or weights trained on it, and is not touched: {', '.join(places)}")
    click.echo("not touched either: the source's own file, and copies outside this project")


def _print_versions(plan: "Plan") -> None:
    """The registered versions that were trained on the records, or may have been."""
    if plan.registry:
        click.echo(f"registry not asked: {plan.registry}")
        return
    held = [one for one in plan.versions if one.state != "not trained on it"]
    click.echo(
        f"registered versions: {len(plan.versions)}, of which were or may have been trained on them: {len(held)}"
    )
    for one in held:
        alias = f" ({', '.join(one.aliases)})" if one.aliases else ""
        click.echo(f"  {one.name} version {one.version}{alias}: {one.state}: {one.why}")


def _next(path: str) -> None:
    """The steps after --apply."""
    steps = [
        (f"dvc add {path}", "and commit its .dvc file, so that others leave them out too"),
        ("dvc repro", "trains again without them"),
        ("dvc gc --workspace", "drops older versions of the data from DVC's cache (--cloud: from the remote)"),
        (spoken("forget --check"), "proves that nothing here holds them"),
        (spoken("register"), "and review: versions trained on them stay in the registry until they are deleted there"),
    ]
    width = max(len(words) for words, _ in steps)
    for words, why in steps:
        click.echo(f"  {words:<{width}}  {why}")


def _print_proof(proof: "Proof", as_json: bool) -> None:
    """What is left, or that nothing is."""
    from dataclasses import asdict

    if as_json:
        click.echo(json.dumps(asdict(proof) | {"holds": proof.holds}, indent=1, ensure_ascii=False))
        return
    for remain in proof.remains[:_SHOWN]:
        click.echo(f"left: {remain.sentence}")
    if len(proof.remains) > _SHOWN:
        click.echo(f"and {len(proof.remains) - _SHOWN} more (--json lists all)")
    cached = any(".dvc" in remain.path for remain in proof.remains)
    if proof.stale:
        click.echo(f"not run on the data as it is now: {', '.join(proof.stale)}; run `dvc repro`")
    for path in proof.older[:_SHOWN]:
        click.echo(f"may hold a part: {path}: older than the list or the data, and no stage writes it anew; delete it")
    if len(proof.older) > _SHOWN:
        click.echo(f"and {len(proof.older) - _SHOWN} more (--json lists all)")
    if cached:
        click.echo("older versions lie in DVC's cache: `dvc gc --workspace` drops what dvc.lock does not name")
    state = "nothing holds them" if proof.holds else "not forgotten yet"
    searched = f"{proof.files:,} files read, {proof.unread:,} of weights and tokens not"
    click.echo(f"forget: {proof.listed} records, {searched}: {state}")
