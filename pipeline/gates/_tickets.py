"""Tickets: what the stages after a gate depend on.

A ticket says *passed* and the hash of what it admits, one per record kind, and nothing else: a moved
threshold, a waiver or more spam messages leave the ticket of the documents as it is, and so never retrain the
base model. Readers compare the hash with what they open: `integrity.require_admitted`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline import files, integrity
from pipeline.config.recipe import Kind


def write(folder: Path, gate: str, admits: Mapping[Kind, str]) -> None:
    """Replaces the tickets of a gate by one per record kind."""
    with files.replace_folder(folder / gate) as fresh:
        for kind, sha256 in admits.items():
            files.write_json(fresh / f"{kind}.json", integrity.ticket(gate, kind, sha256))


def withdraw(folder: Path, gate: str) -> None:
    """Removes the tickets of a gate that failed; those of other gates stay."""
    shutil.rmtree(folder / gate, ignore_errors=True)
