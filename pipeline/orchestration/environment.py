"""Whether the machine is fit for the project: free space, programs, and the installed packages against the lock."""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.orchestration.leftovers import Finding

ENOUGH_GB = 2.0
LOCK = Path("requirements.lock")
_LINE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+))?")
_SHOWN = 5


def disk(root: Path) -> list[Finding]:
    """Free space where the project lies."""
    free = shutil.disk_usage(root).free / 1e9
    if free < ENOUGH_GB:
        return [Finding("mend", f"{free:.1f} GB free, expected {ENOUGH_GB:.0f} or more",
                        "push first: `dvc gc --workspace` drops all that this dvc.lock does not name")]  # fmt: skip
    return [Finding("note", f"{free:,.0f} GB free")]


def programs(root: Path) -> list[Finding]:
    """Python, git and torch."""
    found = []
    if shutil.which("git") is None:
        found.append(Finding("mend", "git is not on the PATH: lineage and the lock's history need it", "install git"))
    try:
        found.append(Finding("note", f"Python {sys.version.split()[0]}, torch {version('torch')}"))
    except PackageNotFoundError:
        found.append(Finding("mend", "torch is not installed", "rm .venv/.ready && make setup"))
    return found


def packages(root: Path) -> list[Finding]:
    """Packages of requirements.lock that are missing or of another version."""
    if not (root / LOCK).is_file():
        return []
    odd = []
    for name, expected in locked((root / LOCK).read_text(encoding="utf-8")):
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing"
        if installed != expected:
            odd.append(f"{name} {installed} instead of {expected}")
    if not odd:
        return []
    more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
    return [Finding("mend", f"{', '.join(odd[:_SHOWN])}{more}", "rm .venv/.ready && make setup")]


def locked(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of every package that a lock names for this platform."""
    from packaging.markers import Marker

    for line in text.splitlines():
        if match := _LINE.match(line):
            marker = (match["marker"] or "").strip()
            if not marker or Marker(marker).evaluate():
                yield match["name"], match["version"]
