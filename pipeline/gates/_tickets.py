"""Tickets: the outs of a data gate on which later stages depend.

There is one per record kind. It states that the gate passed and the hash of the admitted files: a
moved threshold, a waiver or more spam messages leave the documents' ticket unchanged and so never retrain the base
model. Readers compare the hash with the files they open: `integrity.require_admitted`.
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
    """Removes the tickets of a gate that failed; tickets of other gates stay."""
    shutil.rmtree(folder / gate, ignore_errors=True)
