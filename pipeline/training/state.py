"""What a training run needs to go on after it was killed, kept outside the outs and keyed by its inputs.

The folder is `.tohum/state/<fingerprint>`: the fingerprint covers params, data, start weights, code and torch, so a
rerun with equal inputs continues to a bitwise equal result and a rerun with other inputs never sees it. A lock keeps a
second trainer out; a manifest of hashes makes a damaged state a fresh start instead of a wrong result.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.config import UserError
from pipeline.files import kept_aside, read_json, replace_folder, sha256_of, write_json

STATE = Path(".tohum/state")
# Code that cannot change a weight: settings are in the fingerprint by value.
_EXEMPT = {"pipeline.config", "pipeline.plugins", "pipeline.tracking", "pipeline.files"}


def fingerprint(settings: dict[str, Any], inputs: list[Path]) -> str:
    """Hash of everything that decides the bits: settings, input files, the project's loaded code, torch."""
    code = {
        name: sha256_of(Path(str(module.__file__)))
        for name, module in sorted(sys.modules.items())
        if name.startswith("pipeline.") and name not in _EXEMPT and getattr(module, "__file__", None)
    }
    parts = {
        "settings": settings,
        "inputs": {path.as_posix(): sha256_of(path) for path in inputs},
        "code": code,
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class State:
    """The saved state of one run: tensors by name and a small JSON value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Replaces what was saved before; a kill at any moment leaves the old or the new, never a mixture."""
        with replace_folder(self.folder / "current") as new:
            save_file({k: v.detach().contiguous() for k, v in tensors.items()}, new / "tensors.safetensors")
            write_json(new / "progress.json", progress)
            hashes = {p.name: sha256_of(p) for p in (new / "tensors.safetensors", new / "progress.json")}
            write_json(new / "manifest.json", hashes)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was saved last, or None: nothing there, or its bytes differ from its manifest."""
        folder = self.folder / "current"
        if not folder.exists() and kept_aside(folder).exists():
            kept_aside(folder).replace(folder)  # killed in the middle of a swap: the old state is whole
        try:
            hashes = read_json(folder / "manifest.json")
            if any(sha256_of(folder / name) != value for name, value in hashes.items()):
                print(f"warning: {folder} is damaged; training starts over", file=sys.stderr)
                return None
            return load_file(folder / "tensors.safetensors"), read_json(folder / "progress.json")
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def clear(self) -> None:
        """Forgets the run: called once its result stands."""
        shutil.rmtree(self.folder / "current", ignore_errors=True)


@contextmanager
def locked(key: str) -> Iterator[State]:
    """The state folder of one fingerprint, held alone. Raises UserError when another process trains there."""
    folder = STATE / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another process is training with the same inputs; wait for it or stop it"
            ) from None
        handle.write(str(os.getpid()))
        handle.flush()
        yield State(folder)


def pack(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Trainable weights, buffers and optimizer state as flat named tensors."""
    tensors: dict[str, Tensor] = {f"model.{k}": p for k, p in model.named_parameters() if p.requires_grad}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
    return tensors


@torch.no_grad()
def unpack(tensors: dict[str, Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts back what `pack` took."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(tensors[f"model.{name}"])
    state = optimizer.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            state["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(state)
