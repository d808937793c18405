"""Checks of the environment: free space, programs, and the installed packages against the lock."""

import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.orchestration.leftovers import Diagnosis

ENOUGH_GB = 2.0
LOCK = Path("requirements.lock")
_LINE = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)(?:\s*;\s*(?P<marker>[^\\]+))?")
_SHOWN = 5


def disk(root: Path) -> list[Diagnosis]:
    """Free space where the project lies."""
    free = shutil.disk_usage(root).free / 1e9
    if free < ENOUGH_GB:
        return [Diagnosis("mend", f"{free:.1f} GB free, expected {ENOUGH_GB:.0f} or more",
                        "push, then `dvc gc --workspace` drops all but this dvc.lock's objects")]  # fmt: skip
    return [Diagnosis("note", f"{free:,.0f} GB free")]


def programs(_: Path) -> list[Diagnosis]:
    """Python, git and torch."""
    diagnoses = []
    if shutil.which("git") is None:
        diagnoses.append(
            Diagnosis("mend", "git is not on the PATH: lineage and the lock's history need it", "install git")
        )
    try:
        diagnoses.append(Diagnosis("note", f"Python {sys.version.split()[0]}, torch {version('torch')}"))
    except PackageNotFoundError:
        diagnoses.append(Diagnosis("mend", "torch is not installed", "rm .venv/.ready && make setup"))
    return diagnoses


def packages(root: Path) -> list[Diagnosis]:
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
    return [Diagnosis("mend", f"{', '.join(odd[:_SHOWN])}{more}", "rm .venv/.ready && make setup")]


def locked(text: str) -> Iterator[tuple[str, str]]:
    """Name and version of every package that a lock names for this platform."""
    from packaging.markers import Marker

    for line in text.splitlines():
        if match := _LINE.match(line):
            marker = (match["marker"] or "").strip()
            if not marker or Marker(marker).evaluate():
                yield match["name"], match["version"]
