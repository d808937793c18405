"""The files of a registered version: sealed when packed, all read and compared before they are used.

`version.json` lists every file with its SHA-256, except itself and the entry file, which holds the hash of the list.
Two hashes name a version. `model_sha256` (the model's folder) identifies: equal models are one version.
`version_sha256` covers every file of the version: a person approves it and a loader compares it.

MLflow itself writes one more file, `registered_model_meta`, into every copy and, loading in place, into the store. It
overwrites its content and only repeats the version's name and number: it is not covered.
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import UserError

MANIFEST = "version.json"
ENTRY = "_pyfunc.py"
CARD = "model_card.md"
METRICS = "metrics.json"
REVIEW = "review.json"
_NOT_COVERED = "registered_model_meta"
_FORMAT = 1
_SEAL = re.compile(rb'^SEAL = "([0-9a-f]*)"$', re.MULTILINE)
_ADVICE = "the store was changed or damaged: register the model again (tohum register)"


@dataclass(frozen=True)
class Contents:
    """A version's identity, from its files."""

    model: str
    """Name of the model."""
    model_sha256: str
    """SHA-256 of the model's folder."""
    version_sha256: str
    """SHA-256 over every file."""


def seal(folder: Path, model: str) -> Contents:
    """Writes the manifest of a packed version and its hash into the entry file; nothing may be added after it."""
    covered = {name: files.sha256_of(folder / name) for name in _names(folder) - {MANIFEST, ENTRY}}
    model_sha256 = files.sha256_of(folder / "artifacts" / model)
    manifest = {"format": _FORMAT, "model": model, "model_sha256": model_sha256, "files": covered}
    files.write_json(folder / MANIFEST, manifest)
    sealed = f'SEAL = "{files.sha256_of(folder / MANIFEST)}"'.encode()
    entry, count = _SEAL.subn(sealed, (folder / ENTRY).read_bytes())
    assert count == 1, f"{ENTRY}: expected one line with SEAL"
    (folder / ENTRY).write_bytes(entry)
    return Contents(model, model_sha256, _hash_of_all(folder))


def check(folder: Path, name: str, number: str) -> Contents:
    """Reads every file of the version `name`, `number` and compares it with the manifest.

    Raises:
        UserError: a file was changed, added, removed or replaced by a link, or the manifest is none.
    """
    where = f"{name} version {number}"
    there = _names(folder)
    if not there:
        raise UserError(f"{where}: the store holds none of its files; {_ADVICE}")
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{where}: its files have no {MANIFEST}; a version registered before its files were covered by one hash "
            "cannot be approved or loaded, and no other may lack it: register the model again "
            "(tohum register)"
        )
    manifest = _manifest(folder, where)
    covered = manifest["files"]
    expected = {*covered, MANIFEST, ENTRY}
    if missing := sorted(expected - there):
        raise UserError(f"{where}: {missing[0]} is missing ({len(missing)} in all); {_ADVICE}")
    if added := sorted(there - expected):
        raise UserError(f"{where}: {added[0]!r} is no file of this version ({len(added)} in all); {_ADVICE}")
    if links := sorted(path for path in there if (folder / path).is_symlink()):
        raise UserError(f"{where}: {links[0]} is a link, expected a file; {_ADVICE}")
    for path, sha256 in covered.items():
        if (actual := files.sha256_of(folder / path)) != sha256:
            raise UserError(f"{where}: {path} has sha256 {actual}, {MANIFEST} says {sha256}; {_ADVICE}")
    sealed = _SEAL.search((folder / ENTRY).read_bytes())
    if sealed is None or sealed[1].decode() != files.sha256_of(folder / MANIFEST):
        raise UserError(f"{where}: {ENTRY} was packed with another {MANIFEST}; {_ADVICE}")
    model = folder / "artifacts" / manifest["model"]
    if not model.is_dir() or files.sha256_of(model) != manifest["model_sha256"]:
        raise UserError(f"{where}: artifacts/{manifest['model']} is not the model that {MANIFEST} names; {_ADVICE}")
    return Contents(manifest["model"], manifest["model_sha256"], _hash_of_all(folder))


def of_any(folder: Path, name: str) -> Contents:
    """The identity of a version that was not packed by this project: one hash over its files, no manifest to check."""
    sha256 = _hash_of_all(folder)
    return Contents(name, sha256, sha256)


def _manifest(folder: Path, where: str) -> dict[str, Any]:
    try:
        manifest = files.read_json(folder / MANIFEST)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: {MANIFEST} cannot be read ({error}); {_ADVICE}") from None
    kinds = {"format": int, "model": str, "model_sha256": str, "files": dict}
    if not isinstance(manifest, dict) or {key: type(value) for key, value in manifest.items()} != kinds:
        raise UserError(f"{where}: {MANIFEST} is no manifest, expected the keys {', '.join(kinds)}; {_ADVICE}")
    if manifest["model"] in ("", ".", "..") or "/" in manifest["model"]:
        raise UserError(f"{where}: {MANIFEST} names the model {manifest['model']!r}, expected a plain name; {_ADVICE}")
    if manifest["format"] != _FORMAT:
        raise UserError(
            f"{where}: {MANIFEST} has format {manifest['format']}, this code reads {_FORMAT}; use the code that "
            "registered it, or register the model again"
        )
    return manifest


def _names(folder: Path) -> set[str]:
    """Relative names of the covered files: all below a folder that is no directory, links not followed."""
    paths = set()
    for at, directories, names in os.walk(folder):
        links = [name for name in directories if os.path.islink(os.path.join(at, name))]
        paths |= {Path(at, name).relative_to(folder).as_posix() for name in [*names, *links]}
    return paths - {_NOT_COVERED}


def _hash_of_all(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted(_names(folder)):
        digest.update(f"{name}\0{files.sha256_of(folder / name)}\n".encode())
    return digest.hexdigest()
