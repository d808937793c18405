"""Models that are stored as an adapter only (base.json), and whether their base is there with the same weights."""

from pathlib import Path
from typing import Any

from pipeline import files, foreign
from pipeline.errors import UserError
from pipeline.orchestration.leftovers import Diagnosis
from pipeline.paths import DOWNLOADS, MODELS


def adapters(root: Path) -> list[Diagnosis]:
    """Each model whose base is missing or has other weights; then its folder cannot be read."""
    diagnoses = []
    for path in sorted((root / MODELS).glob(f"*/{foreign.BASE}")):
        model = path.parent.name
        try:
            base = files.read_json(path)
            fault = _fault(path.parent, base)
            if fault and _is_downloaded(base, root / DOWNLOADS):
                continue
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            diagnoses.append(Diagnosis("mend", f"{path}: cannot be read: {error}", f"dvc checkout {MODELS / model}"))
            continue
        if fault:
            place = MODELS / str(base["name"])
            diagnoses.append(
                Diagnosis(
                    "mend",
                    f"{MODELS / model} holds an adapter only, and its base {place} {fault}",
                    f"`dvc checkout {place}`, or `dvc pull {place}` from a remote",
                )
            )
    return diagnoses


def _is_downloaded(base: dict[str, Any], downloads: Path) -> bool:
    """Whether the base is unchanged open weights whose pinned files are in the downloads, where they are read too.

    As pipeline/model/adapter_folder.py `find`, without its import of torch.
    """
    origin = base.get("origin")
    if (
        not isinstance(origin, dict)
        or not origin.get("unchanged")
        or None in (origin.get("repository"), origin.get("revision"))
    ):
        return False
    return foreign.downloaded(origin["repository"], origin["revision"], origin["sha256"], downloads) is not None


def _fault(folder: Path, base: dict[str, Any]) -> str:
    """The reason, in words, why the base does not fit; empty if it does."""
    beside = folder.parent / base["name"]
    if not (beside / "config.json").is_file():
        return "is not there"
    sha256 = foreign.weights_sha256(beside)
    return "" if sha256 == base["sha256"] else f"has weights of sha256 {sha256}, expected {base['sha256']}"
