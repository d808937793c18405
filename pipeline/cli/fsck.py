"""Reads every file of DVC and the registry against its hash.

One flipped bit changes neither size nor times, and DVC compares only these: `dvc status`, checkout and push accept
damaged files and pass them on. This reads every byte once: the outs in the working folder against dvc.lock, each object
of the cache and of remotes that are folders against its name, each version in the registry against its tag.

--mend copies good bytes over damaged ones, from any copy here. Nothing is deleted: a replaced or superfluous file goes
to .tohum/fsck/. Exits with 1 if anything is damaged (after mending: still damaged).
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli._command import verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.orchestration.dvc_scan import Mismatch, Scan

GROUP = "Keep the project whole"
ORDER = 71


@verb("tohum fsck", "tohum fsck --mend", "tohum fsck --json > fsck.json")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
@click.option("--mend", is_flag=True, help="Put good copies in the place of damaged ones.")
def command(as_json: bool, mend: bool) -> int:
    """Checks the project in the working folder."""
    from pipeline.errors import UserError
    from pipeline.orchestration import dvc_mend
    from pipeline.orchestration.dvc_scan import Scan

    root = Path().resolve()
    if mend:
        dvc_mend.require_quiet(root)
    scan = Scan.of(root, progress=not as_json)
    done = []
    if mend:
        dvc_mend.require_quiet(root)
        done = dvc_mend.mend(scan)
        scan = Scan.of(root, progress=not as_json) if done else scan
    mismatches, reason = scan.mismatches(), ""
    try:
        mismatches += registry_mismatches(root)
    except UserError as error:
        reason = str(error)
    _print(scan, done, mismatches, as_json)
    if reason:
        click.echo(f"error: the registry was not checked: {reason}", err=True)
    return 1 if mismatches or reason else 0


def registry_mismatches(root: Path) -> "Iterator[Mismatch]":
    """Versions whose stored files differ from the registered ones; none where there is no embedded store."""
    from pipeline import config
    from pipeline.errors import UserError
    from pipeline.orchestration.dvc_scan import Mismatch

    params = config.load(root / config.PARAMS)
    uri = params.runtime.tracking.uri
    if not uri.startswith("sqlite:///") or not (root / uri.removeprefix("sqlite:///")).is_file():
        return
    from pipeline.registry import Registry, reachable  # mlflow costs 3 s

    with reachable(uri):
        store = Registry(params)
        for version in [version for model in store.models() for version in store.versions(model)]:
            try:
                store.verify(version)
            except UserError as error:
                name = f"models:/{version.name}/{version.version}"
                yield Mismatch("registry", name, "damaged", str(version.tags.get("version_sha256")), str(error),
                               "do not promote it; `tohum register` registers good bytes again")  # fmt: skip


def _print(scan: "Scan", done: list[str], mismatches: "list[Mismatch]", as_json: bool) -> None:
    size = sum(path.stat().st_size for path in scan.hashes)
    if as_json:
        report: dict[str, Any] = {"files": len(scan.hashes), "bytes": size, "mended": done}
        report |= {"findings": [asdict(mismatch) for mismatch in mismatches]}
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    for line in [*done, *(mismatch.sentence for mismatch in mismatches)]:
        click.echo(line)
    state = f"{len(mismatches)} findings" if mismatches else "all as recorded"
    click.echo(f"fsck: {len(scan.hashes):,} files, {size / 1e6:,.1f} MB: {state}")
