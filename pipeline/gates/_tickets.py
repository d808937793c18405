"""Tickets: what the stages after a gate depend on.

A ticket says *passed* and the hash of what it admits, one per record kind, and nothing else: a moved
threshold, a waiver or more spam messages leave the ticket of the documents as it is, and so never retrain the
base model.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline import files


def write(folder: Path, gate: str, admits: Mapping[str, str]) -> None:
    """Replaces the tickets of a gate by one per record kind."""
    with files.replace_folder(folder / gate) as fresh:
        for kind, sha256 in admits.items():
            files.write_json(fresh / f"{kind}.json", {"gate": gate, "kind": kind, "passed": True, "admits": sha256})


def withdraw(folder: Path, gate: str) -> None:
    """Removes the tickets of a gate that failed; those of other gates stay."""
    shutil.rmtree(folder / gate, ignore_errors=True)


def combined(paths: Iterable[Path]) -> str:
    """One SHA-256 over several files or folders, by name and content."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name}\0{files.sha256_of(path)}\n".encode())
    return digest.hexdigest()
