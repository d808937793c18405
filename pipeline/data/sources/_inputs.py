"""The folder inputs/: the download stage's only dependency on data, tracked by DVC."""

import glob
from pathlib import Path

from pipeline.errors import UserError
from pipeline.paths import INPUTS


def fixed_part(pattern: str) -> Path:
    """The folder of a path, or the longest leading folder of a pattern without a wildcard."""
    fixed = Path()
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed /= part
    return fixed


def require_inputs(folder: Path) -> None:
    """Raises UserError for a folder outside inputs/, whose changes DVC would not notice."""
    if not folder.resolve().is_relative_to(INPUTS.resolve()):
        raise UserError(
            f"path: {folder} is {folder.resolve()}, outside {INPUTS}/, where DVC would not see a change; copy the "
            f"files into {INPUTS}/ (a link to a folder does not help: DVC does not follow it), or write their sha256"
        )
