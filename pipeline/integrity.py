"""Integrity checks: SHA-256 hashes that stages record and readers compare, so a damaged file stops the next stage.

DVC takes a file as unchanged while its size and times are, so a flipped bit goes unnoticed. Hashes are recorded in
three places, deterministically:

- `manifest.json` in a folder that a stage wrote (data/raw, data/tokens, data/samples, models/<name>): relative name ->
  hash of every other file;
- a ticket, data/tickets/<gate>/<kind>.json: one hash of all files that a gate admitted for one record kind;
- the key `sha256` of a JSON file (details of an evaluation, hashes of a training's figures, verdicts): `this`, the hash
  of its own bytes with that hash set to zeros, and the hashes of files beside it, such as metrics.json, in which DVC
  would show a hash as a metric.

A folder without a manifest, a kind without a ticket and a JSON file without the key were not written by a stage and are
not checked. Each file is read once per process (`files.sha256_of`), also where training hashes its inputs again.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.recipe import ALL_KINDS, KINDS, Kind
from pipeline.errors import UserError
from pipeline.paths import DATA

MANIFEST = "manifest.json"
SEAL, OWN = "sha256", "this"
_BLANK = "0" * 64
_ADMITTED: dict[str, dict[Kind, tuple[str, ...]]] = {
    "raw": {kind: (f"raw/{kind}.parquet",) for kind in ALL_KINDS},
    "tokens": {"documents": ("tokens/ids.bin", "tokens/index.parquet", "tokens/meta.json", "tokens/tokenizer")},
    "samples": {kind: (f"samples/{kind}",) for kind in ALL_KINDS},
}
"""Gate -> record kind -> files and folders below data/ that its ticket covers."""


def write_manifest(folder: Path) -> None:
    """Writes <folder>/manifest.json with the hashes of all files in the folder."""
    listed = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST}
    files.write_json(folder / MANIFEST, {name: files.sha256_of(path) for name, path in listed.items()})


def identity(folder: Path) -> str:
    """SHA-256 that names a folder's content: that of its manifest, which lists the hashes of all its files."""
    manifest = folder / MANIFEST
    return files.sha256_of(manifest if manifest.is_file() else folder)


def require_intact(path: Path) -> None:
    """Compares a file, or every file of a folder, with the manifest of the folder it was written in.

    The manifest is in the path itself or at most two folders above; without one, nothing is compared.

    Raises:
        UserError: names the file that is missing or differs, both hashes and the next step.
    """
    manifest = next((p / MANIFEST for p in (path, *path.parents[:2]) if (p / MANIFEST).is_file()), None)
    if manifest is None:
        return
    recorded, root = _manifest(manifest), manifest.parent
    inside = path.relative_to(root).as_posix()
    chosen = [name for name in recorded if inside in (".", name) or name.startswith(f"{inside}/")]
    if not chosen:
        raise UserError(f"{path}: {manifest} does not list it; {_restore(manifest)}")
    for name in sorted(chosen):
        _compare(root / name, recorded[name], manifest)


def admits(gate: str, data: Path = DATA) -> dict[Kind, str]:
    """Per record kind, the hash in a ticket of this gate: of exactly the files that readers of the kind open."""
    held = [kind for kind in _ADMITTED[gate] if kind in kinds_in(data / gate)]
    return {kind: _combined([data / name for name in _ADMITTED[gate][kind]]) for kind in held}


def kinds_in(folder: Path) -> tuple[Kind, ...]:
    """Record kinds of data/raw or data/samples: KINDS, and ratings where the folder has some."""
    return tuple(
        kind for kind in ALL_KINDS if kind in KINDS or (folder / f"{kind}.parquet").exists() or (folder / kind).exists()
    )


def ticket(gate: str, kind: Kind, sha256: str) -> dict[str, Any]:
    """The content of a ticket: passed, and the hash of the admitted files."""
    return {"gate": gate, "kind": kind, "passed": True, "admits": sha256}


def require_admitted(gate: str, kind: Kind, data: Path = DATA) -> None:
    """Compares the files of one record kind with their manifest, then with the gate's ticket.

    Raises:
        UserError: a file is missing or differs, or the ticket is damaged or for other bytes.
    """
    paths = [data / name for name in _ADMITTED[gate][kind]]
    for path in paths:
        require_intact(path)
    place = data / "tickets" / gate / f"{kind}.json"
    if not place.is_file():
        return
    recorded, expected = _object(place), ticket(gate, kind, _combined(paths))
    if recorded != expected:
        admitted = paths[0].parent if len(paths) > 1 else paths[0]
        raise UserError(
            f"{place}: admits sha256 {recorded.get('admits')}, {admitted} has {expected['admits']}; gate {gate} "
            f"has not judged these bytes, or the ticket is damaged: delete {place.parent} and run `dvc repro`"
        )


def write_json(path: Path, value: dict[str, Any], beside: Sequence[Path] = ()) -> None:
    """Writes a JSON object with its own hash and the hashes of files beside it under the key `sha256`."""
    seal = {OWN: _BLANK, **{other.name: files.sha256_of(other) for other in beside}}
    text = json.dumps({**value, SEAL: seal}, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    own = hashlib.sha256(text.encode("utf-8")).hexdigest()
    files.write_text(path, text.replace(f'"{OWN}": "{_BLANK}"', f'"{OWN}": "{own}"', 1))


def read_json(path: Path) -> dict[str, Any]:
    """Reads and checks an object that `write_json` wrote and the files beside it; the key `sha256` is removed.

    Raises:
        UserError: the file is missing or damaged, or one beside it is.
    """
    value = _object(path)
    # A flipped bit in the key itself must not make it a file without hashes.
    damaged = [key for key in value if len(key) == len(SEAL) and sum(map(str.__ne__, key, SEAL)) == 1]
    seal = value.pop(SEAL, None)
    if seal is None and not damaged:
        return value
    own = seal.get(OWN) if isinstance(seal, dict) else None
    if not isinstance(own, str):
        raise UserError(f"{path}: its sha256 is not readable; {_restore(path)}")
    actual = hashlib.sha256(path.read_bytes().replace(own.encode("utf-8"), _BLANK.encode(), 1)).hexdigest()
    if actual != own:
        raise UserError(f"{path}: sha256 is {actual}, expected {own}, which it records itself; {_restore(path)}")
    for name, expected in seal.items():
        if name != OWN:
            _compare(path.parent / name, expected, path)
    return value


def read_recorded(path: Path, record: Path) -> dict[str, Any]:
    """Reads a plain JSON object; its hash is in the file `record`, written by `write_json`, if that exists.

    Raises:
        UserError: either file is damaged, or `path` is missing.
    """
    if record.is_file():
        read_json(record)
    return _object(path)


def _combined(paths: Sequence[Path]) -> str:
    """The hash of a single file or folder; of several, one hash over their names and hashes."""
    if len(paths) == 1:
        return files.sha256_of(paths[0])
    lines = [f"{path.name}\0{files.sha256_of(path)}\n" for path in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _compare(path: Path, expected: Any, record: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, {record} lists it; {_restore(path)}")
    if (actual := files.sha256_of(path)) != expected:
        raise UserError(f"{path}: sha256 is {actual}, not what {record.name} says ({expected}); {_restore(path)}")


def _manifest(path: Path) -> dict[str, Any]:
    recorded = _object(path)
    if outside := next((name for name in recorded if Path(name).is_absolute() or ".." in Path(name).parts), None):
        raise UserError(f"{path}: lists {outside!r}, which is outside its folder; {_restore(path)}")
    return recorded


def _object(path: Path) -> dict[str, Any]:
    try:
        value = files.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`") from None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {_restore(path)}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a table of names and values, found {type(value).__name__}; {_restore(path)}")
    return value


def _restore(path: Path) -> str:
    """The next step. DVC does not replace a file whose size and times are unchanged, so it has to be deleted first."""
    return (
        f"damaged, or changed after it was written: delete {path} and run `dvc checkout {path}` (`tohum fsck` tells "
        "whether DVC's copy is good), or make it again with `dvc repro --force`"
    )
