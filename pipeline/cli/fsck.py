"""Re-hashes everything that DVC and the registry keep: `python -m pipeline.cli.fsck [--json] [--mend]`, or `make fsck`.

A disk that turns one bit over changes neither size nor times, and DVC looks at nothing else: `dvc status`, checkout and
push take and hand on damaged files. This reads every byte once: the outs in the working folder against dvc.lock, each
object of the cache and of remotes that are folders against its name, each version in the registry against its tag.

`--mend` copies good bytes over damaged ones, from wherever they lie. Nothing is deleted: a replaced or superfluous file
goes to .tohum/fsck/. Exit code 1 if anything is wrong (after mending: still wrong).
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import config
from pipeline.errors import UserError
from pipeline.orchestration import dvc_lock, dvc_store
from pipeline.orchestration.dvc_scan import WORKSPACE, Finding, Scan
from pipeline.paths import WORK

ASIDE = WORK / "fsck"


def mend(scan: Scan) -> list[str]:
    """Puts good bytes where damaged or missing ones were; returns what was done, one line each.

    A file that was replaced, a superfluous one and a damaged object without a good copy are moved to .tohum/fsck/.
    """
    done = []
    aside = ASIDE / time.strftime("%Y%m%d-%H%M%S")
    # Superfluous files last: one of them may be the only good copy of another.
    for one in sorted(scan.findings(), key=lambda one: one.state == "extra"):
        try:
            done += _mend(scan, one, aside)
        except OSError as error:
            done.append(f"{one.path} ({one.where}): not mended: {error}")
    return done


def _mend(scan: Scan, one: Finding, aside: Path) -> list[str]:
    path, good = scan.root / one.path, scan.good.get(_object(one))
    if one.where == WORKSPACE and one.state != "missing" and scan.added(one.path):
        return []  # perhaps the user's own edit, which `dvc add` has not seen yet
    if one.where.startswith("remote ") and one.state in ("missing", "extra"):
        return []  # a push that is still to come, or somebody else's at work
    if one.where == WORKSPACE and good is None and one.state != "extra":
        return []
    if path.exists():
        _set_aside(scan, path, scan.root / aside / one.path.lstrip("/"))
        good = scan.good.get(_object(one))
    if one.state != "extra" and good is not None:
        _restore(scan, one, path, good)
        return [f"{one.path} ({one.where}): restored"]
    return [f"{one.path} ({one.where}): moved to {aside}"] if one.state != "missing" else []


def _restore(scan: Scan, one: Finding, path: Path, good: Path | bytes) -> None:
    folder = scan.listed(one.expected) if one.where == WORKSPACE and one.expected.endswith(".dir") else None
    if folder is None:
        dvc_store.put(path, good, read_only=one.where == "cache")
        return
    for name, md5 in folder.items():  # the whole folder was gone
        if md5 in scan.good:
            dvc_store.put(path / name, scan.good[md5], read_only=False)


def _object(one: Finding) -> str:
    """The name of the object with the expected content; a damaged `.dir` shows in its path."""
    return one.expected + (".dir" if one.path.endswith(".dir") and not one.expected.endswith(".dir") else "")


def _set_aside(scan: Scan, path: Path, target: Path) -> None:
    """Moves a file away; what it holds may still be a good copy of another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    for name, place in scan.good.items():
        if place == path:
            scan.good[name] = target


def registry(root: Path) -> Iterator[Finding]:
    """Versions whose stored files differ from what was registered; nothing where there is no embedded store."""
    params = config.load(root / config.PARAMS)
    uri = params.runtime.tracking.uri
    if not uri.startswith("sqlite:///") or not (root / uri.removeprefix("sqlite:///")).is_file():
        return
    from pipeline.registry import Registry, reachable  # mlflow costs 3 s

    with reachable(uri):
        store = Registry(params)
        versions = [version for model in store.models() for version in store.versions(model)]
        for version in versions:
            try:
                store.verify(version)
            except UserError as error:
                name = f"models:/{version.name}/{version.version}"
                yield Finding("registry", name, "damaged", str(version.tags.get("version_sha256")), str(error),
                              "do not promote it; `make register` registers good bytes again")  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Checks the project in the working directory; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.cli.fsck", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--mend", action="store_true", help="put good copies in the place of damaged ones")
    options = parser.parse_args(arguments)
    root = Path().resolve()
    try:
        _require_quiet(root, options.mend)
        scan = Scan.of(root, progress=not options.json)
        _require_quiet(root, options.mend)
        done = mend(scan) if options.mend else []
        scan = Scan.of(root, progress=not options.json) if done else scan
        found = scan.findings()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    reason = ""
    try:
        found += registry(root)
    except UserError as error:
        reason = str(error)
    _tell(scan, done, found, options.json)
    if reason:
        print(f"error: the registry was not checked: {reason}", file=sys.stderr)
    return 1 if found or reason else 0


def _require_quiet(root: Path, mending: bool) -> None:
    """Raises UserError if dvc would record what is put back as the out of the stage that it runs."""
    if mending and (alive := dvc_lock.running(root)):
        raise UserError(f"dvc is at work here (process {alive}); wait for its end, then mend")


def _tell(scan: Scan, done: list[str], found: list[Finding], as_json: bool) -> None:
    size = sum(path.stat().st_size for path in scan.hashes)
    if as_json:
        told: dict[str, Any] = {"files": len(scan.hashes), "bytes": size, "mended": done}
        print(json.dumps(told | {"findings": [asdict(one) for one in found]}, indent=1, ensure_ascii=False))
        return
    for line in [*done, *(one.sentence for one in found)]:
        print(line)
    state = f"{len(found)} findings" if found else "all as recorded"
    print(f"fsck: {len(scan.hashes):,} files, {size / 1e6:,.1f} MB: {state}")


if __name__ == "__main__":
    sys.exit(main())
