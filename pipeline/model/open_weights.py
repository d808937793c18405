"""Open weights that pretraining starts from: a local folder or one of the Hugging Face hub, pinned by SHA-256."""

import hashlib
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline import files, foreign
from pipeline.config.recipe import InitialWeights
from pipeline.errors import UserError
from pipeline.foreign import BASE
from pipeline.model import checkpoint, library_folder, weights
from pipeline.model.adapter_folder import Origin
from pipeline.model.gpt import GPT
from pipeline.model.inspection import inspect

_LICENCE = re.compile(r"^(?:license|- Licence): *[\"']?([A-Za-z0-9][\w.+-]*)", re.MULTILINE)
"""The licence in a README.md: in the model card's front matter (Hugging Face), or as gguf_adoption.py writes it."""


class Released(NamedTuple):
    """Facts about a released model, for the person who starts from it."""

    family: str
    """`model_type` of config.json."""
    parameters: int
    """Numbers in its files of weights."""
    n_bytes: int
    """Bytes of those files."""
    types: dict[str, int]
    """Type of a tensor, as safetensors writes it -> number of such tensors."""
    config: dict[str, Any]
    """config.json."""
    licence: str | None
    """As its README.md names it; None: it names none."""
    sha256: str
    """The pin of `pretrain.start`."""


def pin(folder: Path) -> str:
    """One SHA-256 for every file of a model folder that decides the model or its text; the pin of `pretrain.start`.

    Of the sorted (name, SHA-256) lines of config.json, weights and index, tokenizer, adapter, ...: foreign.members.
    """
    return foreign.pin(foreign.hashes(folder))


def released(folder: Path) -> Released:
    """Facts about the model in a folder. Raises UserError where the folder could not be a start."""
    _check(folder)
    headers = weights.folder_headers(folder)
    types: dict[str, int] = {}
    for header in headers.values():
        types[header.dtype] = types.get(header.dtype, 0) + 1
    config = foreign.read_object(folder / "config.json")
    stored = {header.file for header in headers.values()}
    return Released(
        str(config["model_type"]),
        sum(prod(header.shape) for header in headers.values()),
        sum(path.stat().st_size for path in stored),
        types,
        config,
        _licence(folder / "README.md"),
        pin(folder),
    )


def _check(folder: Path) -> None:
    """Checks a folder of one of our families, or of another architecture that transformers computes."""
    if library_folder.is_library(folder):
        library_folder.inspect(folder)
    else:
        inspect(folder)


def _licence(path: Path) -> str | None:
    if not path.is_file():
        return None
    match = _LICENCE.search(foreign.read_bytes(path).decode("utf-8", errors="replace"))
    return match[1] if match and match[1] != "not" else None


def fetch(start: InitialWeights, cache: Path) -> Path:
    """The folder of the open weights that `pretrain.start` names, checked against its sha256.

    Args:
        start: kind `folder` (path on this machine) or `hub` (repository id and a commit as revision).
        cache: where downloads are kept.

    Raises:
        UserError: no such folder or repository, an unpinned revision, no network, or another sha256 than
            pinned.
    """
    if start.kind == "scratch" or start.path is None:
        raise UserError(
            f"params.yaml: pretrain.start.kind is {start.kind!r} with path {start.path!r}; open weights need "
            "kind folder or hub, and a path"
        )
    folder = Path(start.path) if start.kind == "folder" else _download(start.path, start.revision, cache)
    if not folder.is_dir():
        raise UserError(f"params.yaml: pretrain.start.path is {start.path!r}; no such folder")
    if (folder / BASE).is_file():
        raise UserError(
            f"{folder}: holds an adapter only, and pretrain.start needs all weights; write them with `tohum export "
            f"{folder.name} --folder FOLDER` in the adapter's own project"
        )
    _check(folder)
    hashes = foreign.hashes(folder)
    found, lists = foreign.pin(hashes), cache / "pins"
    if start.sha256 is None:
        raise UserError(
            f"params.yaml: pretrain.start.sha256 is null; open weights are pinned; if you trust these, write {found}"
        )
    if found != start.sha256.lower():
        raise UserError(
            f"{folder}: sha256 of its {len(hashes)} files is {found}, params.yaml: pretrain.start.sha256 is "
            f"{start.sha256}; {_difference(start.sha256.lower(), hashes, lists)}"
        )
    if not (lists / f"{found}.json").is_file():
        files.write_json(lists / f"{found}.json", hashes)
    return folder


def origin(start: InitialWeights, model: GPT | None, cache: Path) -> Origin | None:
    """The entry of origin.json for a model that was made from open weights; None from scratch.

    Args:
        start: the start of its recipe; the weights are there.
        model: compared number by number with the open weights; None: it was trained.
        cache: where downloads are kept.
    """
    if start.kind == "scratch" or start.path is None or start.sha256 is None:
        return None
    hub = start.kind == "hub" and start.revision is not None
    folder = foreign.snapshot(start.path, start.revision or "", cache) if hub else Path(start.path)
    unchanged = False
    if model is not None:
        ours, theirs = model.state_dict(), checkpoint.load(folder).state_dict()
        unchanged = ours.keys() == theirs.keys() and all(torch.equal(ours[key].cpu(), theirs[key]) for key in theirs)
    return Origin(
        repository=start.path if hub else None, revision=start.revision if hub else None,
        sha256=start.sha256.lower(), licence=start.licence, unchanged=unchanged,
    )  # fmt: skip


def _difference(pinned: str, hashes: Mapping[str, str], lists: Path) -> str:
    """How a folder differs from its pin, as far as can be known: a pin that held before left its list of files."""
    parts = [hashes[name] for name in sorted(hashes) if "/" not in name and name.endswith(".safetensors")]
    if pinned in (*parts, hashlib.sha256("".join(parts).encode()).hexdigest()):
        return (
            "that is the hash of only the weights, and config, tokenizer and adapter decide the model too: if you "
            "trust these files, write the hash of all of them"
        )
    path = lists / f"{pinned}.json"
    before = foreign.read_object(path) if path.is_file() else {}
    if before and foreign.pin(before) == pinned:
        odd = [name for name in sorted(before.keys() | hashes.keys()) if before.get(name) != hashes.get(name)]
        return (
            f"{', '.join(odd[:5])} changed since they were used last: take the files that were pinned, or, if you "
            "trust these, write their hash"
        )
    return (
        "these are other weights than were pinned, or other files beside them: take those that were meant, or, if you "
        "trust these, write their hash"
    )


def _download(repository: str, revision: str | None, cache: Path) -> Path:
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise UserError(
            f"params.yaml: pretrain.start.revision is {revision!r}; expected the 40 hexadecimal digits of a "
            f"commit of {repository}, so that the weights cannot change under you"
        )
    from huggingface_hub import snapshot_download

    try:
        # No patterns but these: pickled weights and code never reach this machine.
        path = snapshot_download(
            repository,
            revision=revision,
            cache_dir=cache,
            allow_patterns=[f"*{suffix}" for suffix in foreign.READ],
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{repository}@{revision}: not downloaded: {error}; "
            "check the id, the revision and the network, or "
            "set pretrain.start.kind to folder and path to a local copy"
        ) from error
    return Path(path)
