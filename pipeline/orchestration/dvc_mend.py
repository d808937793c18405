"""Repair of mismatches: good copies over damaged files of the working folder, the cache and remotes."""

import shutil
import time
from pathlib import Path

from pipeline.errors import UserError
from pipeline.orchestration import dvc_lock, dvc_store
from pipeline.orchestration.dvc_scan import WORKSPACE, Mismatch, Scan
from pipeline.paths import WORK

ASIDE = WORK / "fsck"


def mend(scan: Scan) -> list[str]:
    """Restores damaged and missing files from good copies; returns a sentence for each change.

    A file that was replaced, a superfluous one and a damaged object without a good copy are moved to .tohum/fsck/.
    """
    done = []
    aside = ASIDE / time.strftime("%Y%m%d-%H%M%S")
    # Superfluous files last: one of them may be the only good copy of another.
    for mismatch in sorted(scan.mismatches(), key=lambda mismatch: mismatch.state == "extra"):
        try:
            done += _mend(scan, mismatch, aside)
        except OSError as error:
            done.append(f"{mismatch.path} ({mismatch.where}): not mended: {error}")
    return done


def _mend(scan: Scan, mismatch: Mismatch, aside: Path) -> list[str]:
    path, good = scan.root / mismatch.path, scan.good.get(_object(mismatch))
    if mismatch.where == WORKSPACE and mismatch.state != "missing" and scan.added(mismatch.path):
        return []  # perhaps the user's own edit, not yet added with `dvc add`
    if mismatch.where.startswith("remote ") and mismatch.state in ("missing", "extra"):
        return []  # not pushed yet, or another program is pushing
    if mismatch.where == WORKSPACE and good is None and mismatch.state != "extra":
        return []
    if path.exists():
        _set_aside(scan, path, scan.root / aside / mismatch.path.lstrip("/"))
        good = scan.good.get(_object(mismatch))
    if mismatch.state != "extra" and good is not None:
        _restore(scan, mismatch, path, good)
        return [f"{mismatch.path} ({mismatch.where}): restored"]
    return [f"{mismatch.path} ({mismatch.where}): moved to {aside}"] if mismatch.state != "missing" else []


def _restore(scan: Scan, mismatch: Mismatch, path: Path, good: Path | bytes) -> None:
    folder = (
        scan.listed(mismatch.expected) if mismatch.where == WORKSPACE and mismatch.expected.endswith(".dir") else None
    )
    if folder is None:
        dvc_store.put(path, good, read_only=mismatch.where == "cache")
        return
    for name, md5 in folder.items():  # the whole folder was gone
        if md5 in scan.good:
            dvc_store.put(path / name, scan.good[md5], read_only=False)


def _object(mismatch: Mismatch) -> str:
    """The name of the object with the expected content; a damaged `.dir` shows in its path."""
    return mismatch.expected + (
        ".dir" if mismatch.path.endswith(".dir") and not mismatch.expected.endswith(".dir") else ""
    )


def _set_aside(scan: Scan, path: Path, target: Path) -> None:
    """Moves a file away and records its new path: it may hold a good copy of another file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    for name, place in scan.good.items():
        if place == path:
            scan.good[name] = target


def require_quiet(root: Path) -> None:
    """Raises UserError while dvc runs here: it would record a restored file as the out of its current stage."""
    if alive := dvc_lock.running(root):
        raise UserError(f"dvc runs in {root} (process {alive}); wait for its end, then repeat")
