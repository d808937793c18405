"""DVC's records and object stores as files: dvc.lock, the cache and remotes that are folders. Read without DVC.

An object is named by the MD5 of its content: `files/md5/<2 digits>/<30 digits>`, in the cache and in a remote alike. A
folder is an object `<md5>.dir`, a JSON list of {"md5", "relpath"} sorted by path, named by the MD5 of that list. DVC
itself does not verify objects of the cache.
"""

import configparser
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.errors import UserError
from pipeline.orchestration.dvc_lock_schema import problem

_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


@dataclass(frozen=True)
class Out:
    """A file or folder that dvc.lock, or a .dvc file, records."""

    path: str
    md5: str
    """Of a folder it ends in `.dir`."""
    stage: str
    """Empty for a file under `dvc add`."""
    cached: bool
    """Whether DVC keeps it in the cache; False for `cache: false` in dvc.yaml."""


@dataclass(frozen=True)
class Store:
    """A folder of objects: the cache, or a remote."""

    name: str
    folder: Path

    def place(self, md5: str) -> Path:
        """Where an object lies."""
        return self.folder / md5[:2] / md5[2:]

    def files(self) -> list[Path]:
        """Everything that lies in the store, sorted."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def named(self, path: Path) -> str | None:
        """The MD5 that a file's place claims; None where no object may lie."""
        inside = path.relative_to(self.folder).as_posix()
        return inside.replace("/", "") if _NAME.fullmatch(inside) else None


def outs(root: Path) -> list[Out]:
    """Every out in dvc.lock and every file under `dvc add` below inputs/, by path.

    Raises:
        UserError: dvc.lock or a .dvc file cannot be read.
    """
    lock = root / "dvc.lock"
    if lock.is_file() and (reason := problem(lock.read_bytes())):
        raise UserError(f"{lock}: damaged ({reason}); run `tohum doctor --mend`")
    uncached = _uncached(root / "dvc.yaml")
    recorded = []
    for stage, entry in (_yaml(lock).get("stages") or {}).items():
        for out in entry.get("outs") or []:
            if md5 := out.get("md5"):
                cached = not any(pattern.fullmatch(out["path"]) for pattern in uncached)
                recorded.append(Out(out["path"], md5, stage, cached))
    for file in sorted((root / "inputs").rglob("*.dvc")):
        folder = file.parent.relative_to(root)
        for out in _yaml(file).get("outs") or []:
            if md5 := out.get("md5"):
                recorded.append(Out((folder / out["path"]).as_posix(), md5, "", out.get("cache", True)))
    return sorted(recorded, key=lambda out: out.path)


def outs_and_deps(lock: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Stage -> paths of its dependencies and of its outs, as dvc.lock records them; empty without one.

    Raises:
        UserError: dvc.lock cannot be read.
    """
    stages = _yaml(lock).get("stages") or {}
    return {
        stage: ([dep["path"] for dep in entry.get("deps") or []], [out["path"] for out in entry.get("outs") or []])
        for stage, entry in stages.items()
    }


def stores(root: Path) -> list[Store]:
    """The cache and every remote that is a folder here, as .dvc/config and .dvc/config.local name them."""
    cache, remotes = root / ".dvc/cache", dict[str, Path]()
    for name in ("config", "config.local"):
        parser = configparser.RawConfigParser()
        try:
            parser.read(root / ".dvc" / name, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise UserError(f"{root / '.dvc' / name}: not readable: {error}; fix or delete it") from None
        for section in parser.sections():
            words = section.strip("'").split('"')
            if section == "cache" and parser.has_option(section, "dir"):
                cache = root / ".dvc" / parser[section]["dir"]
            url = parser[section].get("url", "")
            if words[0].strip() == "remote" and url and "://" not in url:
                remotes[words[1]] = root / ".dvc" / Path(url).expanduser()
    local = [Store("cache", cache.resolve() / "files/md5")]
    return local + [Store(f"remote {name}", folder.resolve() / "files/md5") for name, folder in remotes.items()]


def listing(content: bytes) -> dict[str, str] | None:
    """Relative path -> MD5 of a `.dir` object; None if it is none."""
    try:
        return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
    except (ValueError, TypeError, KeyError):
        return None


def as_dir(hashes: dict[str, str]) -> bytes:
    """The bytes of the `.dir` object of a folder: its MD5 names it."""
    entries = [{"md5": hashes[name], "relpath": name} for name in sorted(hashes)]
    return json.dumps(entries, sort_keys=True).encode("utf-8")


def below(root: Path, folder: Path) -> Iterator[Path]:
    """The files of a folder that DVC counts: files that .dvcignore names are not part of an out."""
    text = (root / ".dvcignore").read_text(encoding="utf-8") if (root / ".dvcignore").is_file() else ""
    ignored = [line.strip().strip("/") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(fnmatch(part, pattern) for part in parts for pattern in ignored):
            yield path


def _uncached(path: Path) -> list[re.Pattern[str]]:
    """The outs of dvc.yaml with `cache: false`, `${...}` standing for any text."""
    patterns = []
    for stage in (_yaml(path).get("stages") or {}).values():
        body = stage.get("do", stage)
        entries = [entry for key in ("outs", "metrics", "plots") for entry in body.get(key) or []]
        for entry in entries:
            for name, settings in entry.items() if isinstance(entry, dict) else ():
                if isinstance(settings, dict) and settings.get("cache") is False:
                    patterns.append(re.compile(".+".join(map(re.escape, re.split(r"\$\{[^}]*\}", name)))))
    return patterns


def _yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not readable as YAML ({error}); run `tohum doctor --mend`") from None
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: holds no table; run `tohum doctor --mend`")
    return content or {}


def put(path: Path, content: Path | bytes, read_only: bool) -> None:
    """Writes one object or file, whole or not at all; `read_only` as DVC leaves its cache."""
    with files.replacing(path) as temporary:
        if isinstance(content, bytes):
            temporary.write_bytes(content)
        else:
            shutil.copyfile(content, temporary)
        if read_only:
            temporary.chmod(0o444)
