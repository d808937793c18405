"""The files of a user's path: a file, a folder, a pattern or a zip archive; and the source that names them."""

import fnmatch
import glob
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.formats._text import File
from pipeline.data.sources.zip import members
from pipeline.errors import UserError
from pipeline.files import sha256_of

TABLES = ("csv", "tsv", "json", "jsonl", "ndjson", "parquet", "pq", "arrow", "feather", "xlsx", "xlsm", "xls", "ods")
TEXTS = ("txt", "text", "md")
_SPREADSHEETS = ("xlsx", "xlsm", "xls", "ods")
_BESIDE = (
    "readme",
    "licen",
    "copying",
    "changelog",
    "notice",
    "dataset_info",
    "dataset_dict",
    "state.json",
    "_success",
)
"""Beginnings of names of files that describe a data set."""
_MOST_FILES = 100_000
_MOST_FOLDERS = 50
_SHORT_TEXT = 20_000
"""Mean bytes of a file up to which files in one folder per label are texts, and no books."""
_SPLITS = frozenset({"train", "training", "test", "testing", "dev", "val", "valid", "validation", "unsup"})


@dataclass(frozen=True)
class Inputs:
    """Files of one ending to read as one source."""

    shown: str
    """The user's path, in messages."""
    files: tuple[File, ...]
    source: str
    """Name of the source: files, zip or labelled_folders."""
    path: str
    """Path or pattern of the source, below inputs/."""
    members: str | None
    """With source zip: name or pattern of the members."""
    sentences: tuple[str, ...] = ()

    def labels(self) -> list[str]:
        """Names of the folders that the files lie in, where each looks like a label: several short texts in each."""
        folders = Counter(file.path.parent.name for file in self.files if "/" in file.name and file.member is None)
        plain = not {name.lower() for name in folders} & _SPLITS
        few = 2 <= len(folders) <= _MOST_FOLDERS and folders.total() == len(self.files)
        size = sum(file.path.stat().st_size for file in self.files) / max(len(self.files), 1)
        return sorted(folders) if few and plain and min(folders.values()) >= 3 and size <= _SHORT_TEXT else []

    def copy_to(self, folder: Path) -> None:
        """Copies the files to a project's folder inputs/, where `path` names them."""
        top = self.path.split("/")[0] if "/" in self.path else ""
        for file in self.files:
            name = self.path if self.source == "zip" else f"{top}/{file.name}" if top else file.name
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(file.path, target)
            elif sha256_of(target) != sha256_of(file.path):
                raise UserError(f"{target}: holds another file of this name; rename one of them")

    def only(self, names: Sequence[str]) -> "Inputs":
        """The same with some of the files left out, by their names."""
        files = tuple(file for file in self.files if file.name in names)
        if len(files) > 1 and self.source == "zip":
            raise UserError(f"{self.shown}: only {', '.join(names[:3])} have the columns; unpack the archive")
        if len(files) > 1:
            return replace(self, files=files)
        if self.source == "zip":
            return replace(self, files=files, members=files[0].name)
        path = f"{Path(self.shown).resolve().name or 'data'}/{files[0].name}"
        return replace(self, files=files, path=path)


def ending(name: str) -> str:
    """The last part of a name after a dot, without .gz, in small letters; empty where there is none."""
    bare = name.rpartition("/")[2].removesuffix(".gz").lstrip(".")
    return bare.rpartition(".")[2].lower() if "." in bare else ""


def find(paths: Sequence[Path]) -> Inputs:
    """The files of one path (a file, a folder, a pattern, a zip archive), or of several files.

    Raises:
        UserError: nothing there, or files of several kinds.
    """
    if len(paths) != 1:
        return _several(paths)
    path = paths[0]
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    if glob.has_magic(str(path)):
        matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        if not matches:
            raise UserError(f"{path}: no file matches this pattern; correct it")
        return find([matches[0]]) if len(matches) == 1 else _several(matches)
    near = sorted(p.name for p in path.parent.iterdir())[:10] if path.parent.is_dir() else []
    beside = f"; {path.parent} contains {near}" if near else ""
    raise UserError(f"{path}: no such file; give a txt, csv, tsv, json, jsonl, parquet, xlsx or zip file{beside}")


def _file(path: Path) -> Inputs:
    with path.open("rb") as stream:
        head = stream.read(4)
    if head == b"PK\x03\x04" and not _is_spreadsheet(path):
        return _archive(path)
    return Inputs(str(path), (File(path, str(path), path.name),), "files", path.name, None)


def _is_spreadsheet(path: Path) -> bool:
    if ending(path.name) in _SPREADSHEETS:
        return True
    try:
        with zipfile.ZipFile(path) as parts:
            names = set(parts.namelist()[:1000])
    except (zipfile.BadZipFile, NotImplementedError):
        return False
    if "word/document.xml" in names or "ppt/presentation.xml" in names:
        raise UserError(f"{path}: is a Word or PowerPoint document; save its text as txt, or its table as csv")
    return "xl/workbook.xml" in names or "xl/workbook.bin" in names


def _archive(path: Path) -> Inputs:
    names = members(path)
    if not names:
        raise UserError(f"{path}: the zip archive holds no file; expected data files")
    kept, sentences = _chosen(names, str(path))
    files = tuple(File(path, f"{path}!{name}", name, name) for name in kept)
    pattern = kept[0] if len(kept) == 1 else f"*{_common_ending(kept)}"
    if also := [name for name in names if fnmatch.fnmatchcase(name, pattern) and name not in kept]:
        raise UserError(f"{path}: {also[0]} lies beside the data and has the same ending; unpack the archive")
    told = f"{len(kept)} of {len(names)} members of the archive are read: {', '.join(kept[:3])} (members)"
    return Inputs(str(path), files, "zip", path.name, pattern, (told, *sentences))


def _folder(path: Path) -> Inputs:
    saved = _saved_dataset(path)
    paths = saved or sorted(
        entry for entry in path.rglob("*")
        if entry.is_file() and not any(part.startswith(".") for part in entry.relative_to(path).parts)
    )  # fmt: skip
    if not paths:
        raise UserError(f"{path}: the folder holds no file; expected data files")
    if len(paths) > _MOST_FILES:
        raise UserError(f"{path}: the folder holds over {_MOST_FILES:,} files; give a pattern, such as '{path}/*.txt'")
    told = ("a folder that `datasets` saved",) if saved else ()
    return _below(path, {file.relative_to(path).as_posix(): file for file in paths}, told)


def _saved_dataset(path: Path) -> list[Path]:
    """The data files of a folder written by `save_to_disk`; empty for other folders."""
    states = [path / "state.json"] if (path / "state.json").is_file() else []
    if (path / "dataset_dict.json").is_file():
        states = sorted(path.glob("*/state.json"))
    paths = []
    for state in states:
        try:
            listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            paths += [state.parent / entry["filename"] for entry in listed]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(f"{state}: not as `datasets` writes it; save the data set again") from None
    if missing := [file for file in paths if not file.is_file()]:
        raise UserError(f"{missing[0]}: no such file, though state.json beside it names it; save the data set again")
    return paths


def _several(paths: Sequence[Path]) -> Inputs:
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(f"{missing[0]}: no such file")
    files = [path for path in paths if path.is_file()]
    if not files:
        raise UserError(f"{paths[0]}: is a folder; give one folder, or files")
    top = Path(*_common_parts([file.parent for file in files]))
    return _below(top, {file.relative_to(top).as_posix(): file for file in files}, ())


def _common_parts(folders: Sequence[Path]) -> list[str]:
    parts: list[str] = []
    for level in zip(*(folder.parts for folder in folders), strict=False):
        if len(set(level)) > 1:
            break
        parts.append(level[0])
    return parts


def _below(top: Path, paths: dict[str, Path], sentences: tuple[str, ...]) -> Inputs:
    """Files of a folder: those of the ending that holds the data."""
    kept, told = _chosen(list(paths), str(top))
    name = top.resolve().name or "data"
    files = tuple(File(paths[key], str(paths[key]), key) for key in kept)
    if kept == [key for key in kept if ending(key) == "zip"][:1]:
        return _file(paths[kept[0]])
    if len(kept) == 1:
        return Inputs(str(top), files, "files", f"{name}/{kept[0]}", None, (*sentences, *told))
    deep = "**/" if any("/" in key for key in kept) else ""
    pattern = f"{glob.escape(name)}/{deep}*{_common_ending(kept)}"
    count = f"{len(kept)} files are read as one source (path)"
    return Inputs(str(top), files, "files", pattern, None, (*sentences, count, *told))


def _common_ending(names: Sequence[str]) -> str:
    suffixes = {f".{ending(name)}" if ending(name) else "" for name in names}
    packed = {name.endswith(".gz") for name in names}
    suffix = suffixes.pop() if len(suffixes) == 1 else ""
    return suffix + (".gz" if packed == {True} else "*" if True in packed else "")


def _chosen(names: list[str], shown: str) -> tuple[list[str], tuple[str, ...]]:
    """The names of the files with data, of one ending, and a sentence on the others.

    Raises:
        UserError: several endings that hold data.
    """
    data = [name for name in names if not name.rpartition("/")[2].lower().startswith(_BESIDE)] or names
    groups: dict[str, list[str]] = {}
    for name in data:
        groups.setdefault(_group(ending(name)), []).append(name)
    tables = [group for group in groups if group in TABLES]
    order = tables or [group for group in groups if group in TEXTS] or list(groups)
    if len(order) > 1:
        raise UserError(
            f"{shown}: holds files of several kinds: {', '.join(sorted(f'.{group}' for group in order))}; give one "
            f"kind by a pattern, such as '{shown.rstrip('/')}/*.{order[0]}', or one file"
        )
    kept = sorted(groups[order[0]])
    left = [name for name in names if name not in set(kept)]
    return kept, (f"{len(left)} other files are left out: {', '.join(left[:3])}",) if left else ()


def _group(suffix: str) -> str:
    same = {"ndjson": "jsonl", "pq": "parquet", "md": "txt", "text": "txt", "feather": "arrow"}
    return same.get(suffix, suffix)
