"""DVC's hash of a dependency, as dvc.lock will record it, computed without importing DVC (0.4 s a stage).

An out of another stage has its hash in dvc.lock. A file or folder inside such an out is looked up in the out's listing,
which DVC keeps in its cache (`files/md5/<2>/<30>.dir`: `[{"md5": ..., "relpath": ...}]`). All other paths are hashed as
DVC does: MD5 of a file's bytes; of a folder, MD5 of the JSON listing of its files, `.dvcignore` obeyed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

CACHE = Path(".dvc/cache/files/md5")
_CHUNK = 1 << 20


def of(path: str, outs: Mapping[str, str], root: Path = Path(".")) -> str | None:
    """DVC's hash of a file or folder of the project; None if it is not there.

    Args:
        path: relative to `root`, with slashes, as dvc.yaml writes it.
        outs: path -> hash of every out in dvc.lock.
    """
    if path in outs:
        return outs[path]
    holder = next((out for out in outs if path.startswith(out + "/")), None)
    if holder is not None and (listed := _listed(outs[holder], path.removeprefix(holder + "/"), root)):
        return listed
    try:
        return _of_workspace(root / path, root)
    except (OSError, ImportError):
        return None


def _listed(digest: str, inner: str, root: Path) -> str | None:
    """The hash of the path `inner` in a folder's listing in the cache; None if there is no listing."""
    value = digest.removesuffix(".dir")
    try:
        entries = json.loads((root / CACHE / value[:2] / f"{value[2:]}.dir").read_bytes())
        files = {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if inner in files:
        return files[inner]
    below = {name.removeprefix(inner + "/"): md5 for name, md5 in files.items() if name.startswith(inner + "/")}
    return _of_listing(below) if below else None


def _of_workspace(path: Path, root: Path) -> str | None:
    if path.is_file():
        return _md5(path)
    if not path.is_dir():
        return None
    return _of_listing({file.relative_to(path).as_posix(): _md5(file) for file in _files(path, root)})


def _of_listing(files: Mapping[str, str]) -> str:
    """A folder's hash from its files': relative path -> MD5."""
    listing = [{"md5": files[name], "relpath": name} for name in sorted(files)]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _files(folder: Path, root: Path) -> Iterator[Path]:
    """The files below a folder that `.dvcignore` at the root leaves in."""
    ignored = _ignored(root)
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).relative_to(root).as_posix()
        folders[:] = [name for name in folders if not ignored(f"{here}/{name}/")]
        yield from (Path(place) / name for name in names if not ignored(f"{here}/{name}"))


def _ignored(root: Path) -> Callable[[str], bool]:
    import pathspec  # DVC's own matcher, here where DVC is

    path = root / ".dvcignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    spec = pathspec.GitIgnoreSpec.from_lines([".git/", ".dvc/", *lines])
    return lambda name: bool(spec.match_file(name))


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
