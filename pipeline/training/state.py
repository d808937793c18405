"""Training state for resuming a killed run: checkpoints outside the outs, keyed by the run's inputs.

The folder is `.tohum/state/<fingerprint>`: the fingerprint covers params, data, start weights, code and torch, so a
rerun with equal inputs continues to a bitwise equal result and a rerun with other inputs never uses it. It holds the
last three states as `step-<number>/{manifest.json, progress.json, tensors.safetensors}`. Each of the three files names
the fingerprint, and the manifest lists size and SHA-256 of the other two: a state that is damaged, incomplete or
another run's is removed with a warning, and the next older one is used. state_locks.py keeps a second trainer out.
"""

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.files import remove, replace_folder, sha256_of, write_json

KEPT = 3
"""States of one run that are kept, the newest."""
MANIFEST, PROGRESS, TENSORS = "manifest.json", "progress.json", "tensors.safetensors"
_LARGEST_MANIFEST = 1 << 16
_NAME = re.compile(r"step-(\d{8,})")
Saved = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name and a small JSON value."""


def fingerprint(settings: dict[str, Any], inputs: list[Path], code: Mapping[str, str]) -> str:
    """Hash of settings, input files, code, torch's build and the vector instructions of the CPU: a training is resumed
    on another CPU model of the same instructions, though its bits may differ there.

    Args:
        settings: as JSON.
        inputs: files and folders, hashed by their bytes.
        code: file -> fingerprint (pipeline.closure).
    """
    parts = {
        "settings": settings,
        "inputs": {path.as_posix(): sha256_of(path) for path in inputs},
        "code": dict(code),
        "torch": _build(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def machine() -> str:
    """torch's build, vector instructions, CPU model and threads: on a CPU, they decide the bits of a training together
    with its inputs.
    """
    return f"{_build()}, {_cpu_model()}, threads: {torch.get_num_threads()}"


def _build() -> str:
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"


def _cpu_model(facts: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name by Linux, else by Python."""
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


class DamagedError(Exception):
    """A saved state that must not be used; the text names the file and the reason."""


class State:
    """The saved states of one run. `key` is the run's fingerprint, by default the folder's name; `most` are kept."""

    def __init__(self, folder: Path, key: str | None = None, most: int = KEPT) -> None:
        self.folder, self.key, self.most = folder, key or folder.name, most

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Adds the state of `progress["step"]` and removes all but the newest `most`.

        A kill at any moment leaves the earlier states intact.

        Raises:
            OSError: it could not be written; the earlier states are intact.
        """
        self._tidy()
        step = int(progress["step"])
        with replace_folder(self._of(step)) as new:
            try:
                contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
                save_file(contiguous, new / TENSORS, metadata={"key": self.key})
            except SafetensorError as error:  # safetensors wraps the system's error in a text
                raise _as_os_error(error, new / TENSORS) from error
            write_json(new / PROGRESS, {"key": self.key, "progress": progress})
            files = {name: _described(new / name) for name in (PROGRESS, TENSORS)}
            write_json(new / MANIFEST, {"key": self.key, "step": step, "files": files})
        for old in self.saved()[self.most :]:
            remove(old)

    def load(self, unfit: Callable[[dict[str, Tensor], dict[str, Any]], str | None] = lambda *_: None) -> Saved | None:
        """The newest valid state, or None. Invalid states are removed, each with a warning.

        Args:
            unfit: the reason why a state does not fit the run, or None.
        """
        self._tidy()
        skipped: list[tuple[Path, str]] = []
        found = None
        for folder in self.saved():
            try:
                tensors, progress = read(folder, self.key)
                if reason := unfit(tensors, progress):
                    raise DamagedError(f"{folder}: {reason}")
                found = tensors, progress
                break
            except DamagedError as error:
                skipped.append((folder, str(error)))
        then = (
            f"training continues from step {found[1]['step']}"
            if found
            else "no older one is good: training starts over"
        )
        for folder, reason in skipped:
            print(f"warning: {reason}; this state is removed, {then}", file=sys.stderr)
            remove(folder)
        return found

    def saved(self) -> list[Path]:
        """Paths with the name of a state, the newest first."""
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)] if self.folder.is_dir() else []
        return sorted(found, key=step_of, reverse=True)

    def clear(self) -> None:
        """Deletes the run's states, once its result is written. Only the lock stays."""
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name != "lock":
                remove(path)

    def _of(self, step: int) -> Path:
        return self.folder / name_of(step)

    def _tidy(self) -> None:
        """Removes leftovers of a save that was killed; this process holds the lock, so no save is under way."""
        for path in self.folder.glob(".step-*.tmp") if self.folder.is_dir() else ():
            remove(path)


def name_of(step: int) -> str:
    """Name of the folder of a state."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """The update of a state, from its folder's name."""
    return int(folder.name.removeprefix("step-"))


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    code = re.search(r"os error (\d+)|code: (\d+)", str(error))
    number = int(code[1] or code[2]) if code else 0
    return OSError(number, os.strerror(number) if number else str(error), str(path))


def read(folder: Path, key: str) -> Saved:
    """A state, checked. Raises DamagedError; other errors of the system (no descriptors, no rights) pass."""
    try:
        manifest = _manifest(folder, key)
        for name, expected in manifest["files"].items():
            if _described(folder / name) != expected:
                raise DamagedError(f"{folder / name}: size or SHA-256 differs from {MANIFEST}")
        progress = _json(folder / PROGRESS)
        if set(progress) != {"key", "progress"} or not isinstance(progress["progress"], dict):
            raise DamagedError(f"{folder / PROGRESS}: not the progress of a training run")
        if progress["key"] != key:
            raise DamagedError(f"{folder / PROGRESS}: belongs to another run, {progress['key']!r}")
        if progress["progress"].get("step") != step_of(folder):
            raise DamagedError(f"{folder / PROGRESS}: is of step {progress['progress'].get('step')!r}")
        with safe_open(folder / TENSORS, "pt") as tensors:
            if (owner := (tensors.metadata() or {}).get("key")) != key:
                raise DamagedError(f"{folder / TENSORS}: belongs to another run, {owner!r}")
            names = list(tensors.keys())
            # cloned: the file may be removed or cut while the training goes on
            return {name: tensors.get_tensor(name).clone() for name in names}, progress["progress"]
    except SafetensorError as error:
        raise DamagedError(f"{folder / TENSORS}: {error}") from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DamagedError(f"{error.filename or folder}: {error.strerror}") from error


def _manifest(folder: Path, key: str) -> dict[str, Any]:
    """The manifest of a state whose folder holds exactly the three files."""
    if folder.is_symlink() or not folder.is_dir():
        raise DamagedError(f"{folder}: not a folder")
    expected = {MANIFEST, PROGRESS, TENSORS}
    names = {path.name for path in folder.iterdir()}
    if names != expected:
        odd = sorted(names ^ expected)[0]
        raise DamagedError(f"{folder / odd}: {'missing' if odd in expected else 'not part of a state'}")
    for name in sorted(expected):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise DamagedError(f"{folder / name}: not a file")
    if (folder / MANIFEST).stat().st_size > _LARGEST_MANIFEST:
        raise DamagedError(f"{folder / MANIFEST}: larger than {_LARGEST_MANIFEST} bytes")
    manifest = _json(folder / MANIFEST)
    if set(manifest) != {"key", "step", "files"}:
        raise DamagedError(f"{folder / MANIFEST}: not the manifest of a state")
    if manifest["key"] != key:
        raise DamagedError(f"{folder / MANIFEST}: belongs to another run, {manifest['key']!r}")
    if manifest["step"] != step_of(folder):
        raise DamagedError(f"{folder / MANIFEST}: is of step {manifest['step']!r}")
    if not isinstance(manifest["files"], dict) or set(manifest["files"]) != {PROGRESS, TENSORS}:
        raise DamagedError(f"{folder / MANIFEST}: must list {PROGRESS} and {TENSORS}")
    return manifest


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path}: a JSON object expected, found {type(found).__name__}")
    return found
