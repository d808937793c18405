"""Comparison of every file in the working folder, DVC's cache and its remotes with the recorded hash."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.orchestration import dvc_store
from pipeline.orchestration.dvc_store import Out, Store

_CHUNK = 1 << 20
WORKSPACE = "workspace"


@dataclass(frozen=True)
class Mismatch:
    """A file that differs from its recorded hash, is missing, or is recorded nowhere."""

    where: str
    """workspace, cache, remote <name> or registry."""
    path: str
    state: Literal["damaged", "missing", "extra"]
    expected: str
    found: str
    todo: str

    @property
    def sentence(self) -> str:
        """The mismatch and the next step, in one line."""
        state = {
            "damaged": f"hash is {self.found}, expected {self.expected}",
            "missing": f"missing, expected with hash {self.expected}",
            "extra": "recorded nowhere",
        }[self.state]
        return f"{self.path} ({self.where}): {state}; {self.todo}"


@dataclass
class Scan:
    """The hashes of a project's files, compared with DVC's records."""

    root: Path
    outs: list[Out]
    stores: list[Store]
    hashes: dict[Path, str]
    """MD5 of every file that was read."""
    good: dict[str, Path | bytes] = field(default_factory=dict)
    """MD5 -> a file that has it, or the bytes of a folder's list."""

    @classmethod
    def of(cls, root: Path, progress: bool = False) -> "Scan":
        """Reads everything. Raises UserError where dvc.lock or DVC's config cannot be read."""
        stores = dvc_store.stores(root)
        return cls._read(root, dvc_store.outs(root), stores, [path for one in stores for path in one.files()], progress)

    @classmethod
    def of_outs(cls, root: Path, outs: list[Out]) -> "Scan":
        """Reads these outs in the working folder, and of the stores the lists of their files alone."""
        stores = dvc_store.stores(root)
        lists = [store.place(out.md5) for store in stores for out in outs if out.md5.endswith(".dir")]
        return cls._read(root, outs, stores, [path for path in lists if path.is_file()], progress=False)

    @classmethod
    def _read(cls, root: Path, outs: list[Out], stores: list[Store], paths: list[Path], progress: bool) -> "Scan":
        """The scan of these outs and of further files."""
        for out in outs:
            place = root / out.path
            paths += dvc_store.below(root, place) if place.is_dir() else [place] if place.is_file() else []
        scan = cls(root, outs, stores, _hashed(paths, progress))
        for path, md5 in scan.hashes.items():
            is_list = path.suffix == ".dir" and any(path.is_relative_to(store.folder) for store in stores)
            scan.good.setdefault(md5 + ".dir" if is_list else md5, path)
        for out in outs:
            if out.md5.endswith(".dir"):  # the list of a folder's files can be restored from the folder itself
                content = dvc_store.as_dir(scan.inside(out))
                scan.good.setdefault(_md5(content) + ".dir", content)
        return scan

    def inside(self, out: Out) -> dict[str, str]:
        """Relative path -> MD5 of the files of an out that is a folder."""
        place = self.root / out.path
        return {path.relative_to(place).as_posix(): self.hashes[path] for path in dvc_store.below(self.root, place)}

    def listed(self, md5: str) -> dict[str, str] | None:
        """Relative path -> MD5 by a folder's `.dir` list, from any good copy; None without one."""
        content = self.good.get(md5)
        return dvc_store.listing(content if isinstance(content, bytes) else content.read_bytes()) if content else None

    def added(self, path: str) -> bool:
        """Whether a path is, or lies in, an out of `dvc add`, which its user may change."""
        return any(Path(path).is_relative_to(out.path) for out in self.outs if not out.stage)

    def needed(self) -> dict[str, str]:
        """MD5 -> the out it belongs to, of every object that the cache should have."""
        needed = {}
        for out in self.outs:
            if out.cached:
                needed[out.md5] = out.path
                inside = self.listed(out.md5) if out.md5.endswith(".dir") else None
                needed |= {md5: f"{out.path}/{name}" for name, md5 in (inside or {}).items()}
        return needed

    def mismatches(self) -> list[Mismatch]:
        """All mismatches: of the cache, then the working folder, then remotes."""
        stores = [list(self._in_store(store)) for store in self.stores]
        workspace = [mismatch for out in self.outs for mismatch in self.in_workspace(out)]
        return [mismatch for part in (*stores[:1], workspace, *stores[1:]) for mismatch in part]

    def _in_store(self, store: Store) -> Iterator[Mismatch]:
        here = [path for path in self.hashes if path.is_relative_to(store.folder)]
        if not here and store.name != "cache":
            return  # nothing was pushed yet
        for path in here:
            name, shown = store.named(path), self._shown(path)
            if name is None:
                yield Mismatch(store.name, shown, "extra", "", self.hashes[path], f"delete {shown}")
            elif self.hashes[path] != name.removesuffix(".dir"):
                todo = f"delete {shown}, then {self._again(store, name)}"
                yield Mismatch(store.name, shown, "damaged", name.removesuffix(".dir"), self.hashes[path], todo)
        for md5, out in self.needed().items():
            place = store.place(md5)
            if place not in self.hashes:
                yield Mismatch(
                    store.name, self._shown(place), "missing", md5, "", f"of {out}: {self._again(store, md5)}"
                )

    def in_workspace(self, out: Out) -> Iterator[Mismatch]:
        """The differences of one out in the working folder."""
        place = self.root / out.path
        if not place.exists():
            yield Mismatch(WORKSPACE, out.path, "missing", out.md5, "", self._checkout(out, out.path, out.md5))
        elif not out.md5.endswith(".dir"):
            actual = self.hashes.get(place, "a folder")
            if actual != out.md5:
                yield Mismatch(WORKSPACE, out.path, "damaged", out.md5, actual, self._checkout(out, out.path, out.md5))
        else:
            yield from self._in_folder(out)

    def _in_folder(self, out: Out) -> Iterator[Mismatch]:
        actual, listed = self.inside(out), self.listed(out.md5)
        if listed is None:
            found_md5 = _md5(dvc_store.as_dir(actual)) + ".dir"
            todo = f"no list of its files is left: `dvc fetch {out.path}`, or {_remake(out)}"
            yield Mismatch(WORKSPACE, out.path, "damaged", out.md5, found_md5, todo)
            return
        for name in sorted({*actual, *listed}):
            path, has, expected = f"{out.path}/{name}", actual.get(name), listed.get(name)
            if expected is None:
                yield Mismatch(WORKSPACE, path, "extra", "", str(has), f"delete {path}")
            elif has != expected:
                state: Literal["missing", "damaged"] = "missing" if has is None else "damaged"
                yield Mismatch(WORKSPACE, path, state, expected, has or "", self._checkout(out, path, expected))

    def _checkout(self, out: Out, path: str, md5: str) -> str:
        # DVC leaves a file in place whose size and times are unchanged, --force or not: it has to be deleted first.
        if not out.stage:
            return f"if you changed it, run `dvc add {out.path}`; if not, move it away and run `dvc checkout {path}`"
        if md5 in self.good:
            return f"delete {path} and run `dvc checkout {path}`"
        return f"no good copy is left here: `dvc pull {out.path}`, or {_remake(out)}"

    def _again(self, store: Store, md5: str) -> str:
        if store.name != "cache":
            return f"`dvc push --remote {store.name.removeprefix('remote ')}`"
        if md5 not in self.good:
            return "`dvc fetch`, or `dvc repro --force` of its stage"
        return "`tohum fsck --mend` puts a good copy back"

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


def _hashed(paths: list[Path], progress: bool) -> dict[Path, str]:
    """MD5 of every file, over all cores, each inode once (a cache may be linked into the working folder)."""
    from tqdm import tqdm

    statuses = {path: path.stat() for path in dict.fromkeys(paths)}
    first = {(status.st_dev, status.st_ino): path for path, status in statuses.items()}
    total = sum(statuses[path].st_size for path in first.values())
    with tqdm(total=total, desc="fsck", unit="B", unit_scale=True, disable=None if progress else True) as bar:

        def read(path: Path) -> str:
            digest = hashlib.md5(usedforsecurity=False)
            try:
                with path.open("rb") as file:
                    while chunk := file.read(_CHUNK):
                        digest.update(chunk)
                        bar.update(len(chunk))
            except OSError as error:
                return f"not readable ({error.strerror})"
            return digest.hexdigest()

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = dict(zip(first, pool.map(read, first.values()), strict=True))
    return {path: hashes[status.st_dev, status.st_ino] for path, status in statuses.items()}


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _remake(out: Out) -> str:
    return f"`dvc repro --force --single-item {out.stage}`" if out.stage else "bring the file back from its source"
