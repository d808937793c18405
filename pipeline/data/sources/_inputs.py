"""The folder inputs/: the only data that the download stage depends on, so DVC sees a change there and nowhere else."""

import glob
from pathlib import Path

from pipeline.errors import UserError
from pipeline.paths import INPUTS


def fixed_part(pattern: str) -> Path:
    """The folder of a path, or the longest folder of a pattern that holds no wildcard."""
    fixed = Path()
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def require_inputs(folder: Path) -> None:
    """Raises UserError where DVC would not notice that a file of the folder has changed."""
    if not folder.resolve().is_relative_to(INPUTS.resolve()):
        raise UserError(
            f"path: {folder} is {folder.resolve()}, outside {INPUTS}/, where DVC would not notice a change; copy the "
            f"files into {INPUTS}/ (a link to a folder does not help: DVC does not follow it), or write their sha256"
        )
