"""Untrusted model and tokenizer folders: files are checked before they are read, and hashed to one pin.

Offers `members` (the files of a model folder that are read), `read_bytes`, `read_json` and `read_object` (bounded in
size and nesting), `whole` (an integer within bounds), `pin` (one SHA-256 of all of a folder's files) and
`weights_sha256` (of its network's). Nothing here runs code or reads tensors. Every refusal is one UserError: file,
found, expected, next step.
"""

import hashlib
import json
import os
import re
import reprlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import UserError

READ = (".safetensors", ".json", ".txt", ".jinja", ".tiktoken")
"""Suffixes of the files that determine a model or its text; pickled weights and code are never read."""
FOLDERS = ("adapter", "language")
"""Subfolders of a model folder that are read."""
BASE, ORIGIN = "base.json", "origin.json"
"""In a model folder that holds an adapter only, the name and the hash of its base (pipeline/model/adapter_folder.py);
in one that was made from open weights, their repository, commit, hash and licence."""
MAX_BYTES, MAX_DEPTH = 64 << 20, 64
"""Bounds of a JSON file; the largest published tokenizer.json has 33 MB, a config.json is 5 levels deep."""
AGAIN = "restore the folder or download it again"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# Content-addressed stores to which a snapshot or a checkout may link: the Hugging Face cache
# (models--x/snapshots/<commit>/file -> ../../blobs/<hash>) and DVC's (cache.type symlink: files/md5/<2>/<30>).
_STORED = re.compile(r"/blobs/[0-9a-f]{40,64}$|/files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir/.*)?$")


def shown(value: Any) -> str:
    """A value of an untrusted file for an error message: its repr on one line, cut to some 60 characters."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    short.maxlong, short.maxlist, short.maxdict, short.maxlevel = 30, 3, 3, 2
    return short.repr(value)


def regular(path: Path, folder: Path | None = None) -> Path:
    """The path itself, if it is a plain file in `folder` (None: anywhere).

    A link may lead to a plain file in the same folder, or to an object of the Hugging Face cache or of DVC's.

    Raises:
        UserError: missing, a folder, pipe or device, a link in a circle or out of the folder.
    """
    try:
        mode = path.stat().st_mode
        real = path.resolve()
        inside = folder is None or real.is_relative_to(folder.resolve()) or _STORED.search(real.as_posix())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle, Python 3.11
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); {AGAIN}") from None
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is {_KINDS.get(stat.S_IFMT(mode), 'no plain file')}, expected a plain file; {AGAIN}")
    if not inside:
        raise UserError(
            f"{path}: is a link out of its folder, to {real}; expected a plain file: replace the link by a copy of it, "
            "if you trust it"
        )
    return path


def members(folder: Path) -> dict[str, Path]:
    """The files of a model folder that determine the model or its text: relative name -> path, sorted.

    Files with a suffix in `READ` at the top and in `FOLDERS`; hidden files, pickled weights and code are left out.

    Raises:
        UserError: one that is no plain file, is a link out of the folder, or is larger than any such file can be.
    """
    paths = {}
    for place in ("", *FOLDERS):
        inner = folder / place
        if place and not os.path.lexists(inner):
            continue
        if place and not inner.is_dir():
            raise UserError(f"{inner}: is no folder; expected a folder or nothing there; {AGAIN}")
        if place and not inner.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{inner}: is a link out of its folder, to {inner.resolve()}; expected a folder: replace the link by a "
                "copy of it, if you trust it"
            )
        for path in inner.iterdir():
            if path.suffix in READ and not path.name.startswith("."):
                if not path.name.isprintable():
                    raise UserError(f"{inner}: has a file called {shown(path.name)}, expected a plain name; {AGAIN}")
                paths[f"{place}/{path.name}" if place else path.name] = _bounded(regular(path, folder))
    return dict(sorted(paths.items()))


def require_memory(path: Path, size: int) -> None:
    """Raises UserError if `size` bytes of weights are more than this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise UserError(
            f"{path}: its weights need {size / 1e9:,.1f} GB of memory, this machine has {memory / 1e9:,.1f}; start "
            "from a smaller model, or use a larger machine"
        )


def _bounded(path: Path) -> Path:
    """The path itself, if its size is within bounds: a sparse file of terabytes would take days to hash."""
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        require_memory(path, size)
    elif size > MAX_BYTES:
        raise _large(path, size)
    return path


def _large(path: Path, size: int) -> UserError:
    return UserError(f"{path}: has {size:,} bytes, expected at most {MAX_BYTES:,}; {AGAIN}")


def read_bytes(path: Path) -> bytes:
    """The bytes of a plain file of at most `MAX_BYTES`. Raises UserError."""
    size = regular(path).stat().st_size
    if size > MAX_BYTES:
        raise _large(path, size)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)  # files in /proc have size 0 but content
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    if len(data) > MAX_BYTES:
        raise _large(path, len(data))
    return data


def parsed(data: bytes, path: Path) -> Any:
    """The JSON value in `data`; `path`: its name in errors. Raises UserError when damaged or nested too deeply."""
    try:
        value = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise _deep(path) from None
    except ValueError as error:  # UnicodeDecodeError and too long integers are ValueErrors too
        raise UserError(f"{path}: not readable as JSON: {str(error)[:120]}; {AGAIN}") from None
    _require_shallow(value, path)
    return value


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError when missing, damaged, too large or nested too deeply."""
    return parsed(read_bytes(path), path)


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError as `read_json` does, and for any other value."""
    return require_object(read_json(path), path)


def require_object(value: Any, path: Path) -> dict[str, Any]:
    """The value itself, if it is a JSON object."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {_json_name(value)}, {shown(value)}, expected an object {{...}}; {AGAIN}")
    return value


def whole(value: Any, where: str, most: int, least: int = 1) -> int:
    """The value itself, if it is an integer from `least` to `most`; `where`: its name in the error."""
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{where} is {shown(value)}, expected a whole number from {least} to {most:,}; {AGAIN}")
    return value


def pin(content: Mapping[str, str]) -> str:
    """One SHA-256 of several files, over their sorted (name, SHA-256) lines; of a single file its own.

    A folder with exactly these files has the same hash in pipeline.files.sha256_of.
    """
    if len(content) == 1:
        return next(iter(content.values()))
    lines = [f"{name}\0{sha256}\n" for name, sha256 in sorted(content.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of the `members` of a model folder."""
    return {name: files.sha256_of(path) for name, path in members(folder).items()}


def snapshot(repository: str, revision: str, cache: Path) -> Path:
    """The folder of a downloaded repository in huggingface_hub's layout of its cache; it may be absent."""
    return cache / f"models--{repository.replace('/', '--')}" / "snapshots" / revision


def downloaded(repository: str, revision: str, sha256: str, cache: Path) -> Path | None:
    """The folder of a downloaded repository if its files have the pinned hash, else None."""
    folder = snapshot(repository, revision, cache)
    if not (folder / "config.json").is_file():
        return None
    return folder if pin(hashes(folder)) == sha256 else None


def weights_sha256(folder: Path) -> str:
    """One SHA-256 of the files of a model folder that decide its network: config.json, weights and their index.

    An adapter in the folder is left out: it is merged into the weights, or is none of the base's.
    """
    content = hashes(folder)
    chosen = [name for name in content if name.endswith((".safetensors", ".safetensors.index.json"))]
    chosen = ["config.json", *(name for name in chosen if not name.startswith("adapter/"))]
    return pin({name: content[name] for name in chosen if name in content})


def _require_shallow(value: Any, path: Path) -> None:
    """Raises UserError for a value nested deeper than MAX_DEPTH; iterative, as deep values break recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inner = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer)]
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return
    raise _deep(path)


def _deep(path: Path) -> UserError:
    return UserError(f"{path}: its JSON is nested more than {MAX_DEPTH} levels deep, expected a few; {AGAIN}")


def _json_name(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "null")
