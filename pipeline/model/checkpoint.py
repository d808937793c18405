"""Models on disk: the Hugging Face folder layout, in and out, safetensors only (never pickle).

`save` writes a folder that transformers, vLLM and llama.cpp's converter read without code of ours, with a manifest of
hashes; `load` reads such folders, ours and theirs, and checks the manifest; `fetch` brings pinned open weights. Neither
safetensors nor torch notices a flipped bit: the manifest does. What no weight can hold (a prefix, a prompt, a
bottleneck) stands in `adapter/`: `load` puts it back, other readers see the model without it.

A folder may be damaged or hostile: links, config, index and the headers of the weights are checked before a number is
read, and the numbers before they are used (pipeline/foreign.py, weights.py, layout.py).
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline import files, foreign
from pipeline.config.recipe import InitialWeights
from pipeline.errors import UserError
from pipeline.foreign import read_json
from pipeline.model import weights
from pipeline.model.adapters import attach
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.model.hf_format import exported_config, exported_name, internal_name, is_transposed, labels_in
from pipeline.model.inspection import HEAD, MANIFEST, NOT_WEIGHTS, empty, inspect, verify
from pipeline.model.weights import WEIGHTS, Header, read_tensors, write_tensors

__all__ = [
    "exported_name",
    "fetch",
    "inspect",
    "internal_name",
    "labels",
    "load",
    "pin",
    "read_json",
    "read_tensors",
    "save",
    "verify",
    "write_tensors",
]

_OURS = {"config.json", "generation_config.json", WEIGHTS, MANIFEST}


def save(
    model: GPT,
    folder: Path,
    *,
    tokenizer: Path | None = None,
    labels: list[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    adapter: Callable[[Path], None] | None = None,
    more: Callable[[Path], None] | None = None,
) -> None:
    """Writes a plain model (merged, no adapter inside) as a complete folder; equal models, equal bytes.

    Args:
        model: saved as <Family>ForSequenceClassification if it has `score`, else as a language model.
        folder: replaced as a whole.
        tokenizer: a folder whose files are copied in; its special tokens go into the configs.
        labels: class names in the order of `score`'s rows; needed with `score`.
        metadata: what else to keep, deterministic JSON, as tohum.json.
        adapter: called with `<folder>/adapter` to fill it.
        more: called with the folder, to put further files there.

    Raises:
        UserError: labels that do not fit the classification head.
    """
    count = 0 if model.score is None else model.score.out_features
    if len(labels or []) != count or len(set(labels or [])) != count:
        raise UserError(
            f"{folder}: {len(labels or [])} labels {labels} for a classification head of {count}; "
            "expected one distinct name per row"
        )
    with files.replace_folder(folder) as temporary:
        if tokenizer is not None:
            _copy_tokenizer(tokenizer, temporary)
        special = _special_tokens(temporary)
        bos, eos, pad = (special.get(name) for name in ("bos_token", "eos_token", "pad_token"))
        files.write_json(temporary / "config.json", exported_config(model.config, labels, bos, eos, pad))
        stops = sorted({i for i in (eos, special.get("<|end|>")) if i is not None}) or None
        generation = {"bos_token_id": bos, "eos_token_id": stops, "pad_token_id": pad}
        files.write_json(temporary / "generation_config.json", generation)
        write_tensors(temporary / WEIGHTS, _exported_tensors(model))
        if model.score is not None and model.head is not None and not model.config.tie_embeddings:
            (temporary / HEAD).parent.mkdir()
            write_tensors(temporary / HEAD, {"head.weight": model.head.weight})
        if metadata is not None:
            files.write_json(temporary / "tohum.json", dict(metadata))
        if adapter is not None:
            adapter(temporary / "adapter")
        if more is not None:
            more(temporary)
        written = {p.relative_to(temporary).as_posix(): p for p in temporary.rglob("*") if p.is_file()}
        files.write_json(temporary / MANIFEST, {name: files.sha256_of(path) for name, path in written.items()})


def load(folder: Path, device: str = "cpu") -> GPT:
    """Reads a model folder, ours or one that transformers saved: float32, evaluation mode, additions in place.

    Raises:
        UserError: no such folder, a file that differs from the manifest, pickled weights, another family, tensors that
            are missing, left over, of another shape or type, or not finite; links out of the folder, and whatever else
            no model folder has. The text names the file.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json there; expected a model folder in the Hugging Face layout")
    verify(folder)
    config, headers = inspect(folder)
    model = empty(config, headers)
    model.load_state_dict(_read_weights(folder, config, headers), assign=True)
    model.requires_grad_(True)
    attach(model, folder / "adapter")
    model.to(device)
    model.tie()
    return model.eval()


def labels(folder: Path) -> list[str] | None:
    """The class names of a classifier's folder in the order of its scores; None for a language model."""
    path = folder / "config.json"
    return labels_in(foreign.read_object(path), str(path))


def pin(folder: Path) -> str:
    """One SHA-256 for every file of a model folder that decides the model or its text: what `pretrain.start` pins.

    Of the sorted (name, SHA-256) lines of config.json, weights and index, tokenizer, adapter, ...: foreign.members.
    """
    return foreign.pin(foreign.hashes(folder))


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
    inspect(folder)
    hashes = foreign.hashes(folder)
    found, lists = foreign.pin(hashes), cache / "pins"
    if start.sha256 is None:
        raise UserError(
            f"params.yaml: pretrain.start.sha256 is null; open weights are pinned; if you trust these, write {found}"
        )
    if found != start.sha256.lower():
        raise UserError(
            f"{folder}: sha256 of its {len(hashes)} files is {found}, params.yaml: pretrain.start.sha256 says "
            f"{start.sha256}; {_difference(start.sha256.lower(), hashes, lists)}"
        )
    if not (lists / f"{found}.json").is_file():
        files.write_json(lists / f"{found}.json", hashes)
    return folder


def _difference(pinned: str, hashes: Mapping[str, str], lists: Path) -> str:
    """How a folder differs from its pin, as far as can be known: a pin that held before left its list of files."""
    parts = [hashes[name] for name in sorted(hashes) if "/" not in name and name.endswith(".safetensors")]
    if pinned in (*parts, hashlib.sha256("".join(parts).encode()).hexdigest()):
        return (
            "that is the hash of the weights alone, and config, tokenizer and adapter decide the model too: if you "
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


def _read_weights(folder: Path, config: ModelConfig, expected: Mapping[str, Header]) -> dict[str, Tensor]:
    """The tensors by our names, float32."""
    ours: dict[str, Tensor] = {}
    for path in sorted({header.file for header in expected.values()} - {folder / HEAD}):
        for key, value in weights.read_tensors(path).items():
            name = internal_name(config.family, key)
            if NOT_WEIGHTS.search(key) or name not in expected:
                continue
            turned = value.T if is_transposed(config.family, name) and value.dim() == 2 else value
            ours[name] = turned.to(torch.float32).contiguous()
            if value.dtype == torch.float64:  # what float32 cannot hold became infinite
                weights.require_finite(ours[name], key, path)
    if (folder / HEAD).is_file():
        ours |= weights.read_tensors(folder / HEAD)
    if config.tie_embeddings:
        ours.setdefault("head.weight", ours["embed.weight"])
    return ours


def _exported_tensors(model: GPT) -> dict[str, Tensor]:
    family, own = model.config.family, model.state_dict()
    if odd := sorted(own.keys() - GPT(model.config, None).state_dict().keys() - {"score.weight"}):
        raise ValueError(f"{odd[0]} is no tensor of a plain {family} model; merge the adapter before saving")
    if model.config.tie_embeddings or model.score is not None:
        own.pop("head.weight", None)
    if family == "gpt2" and not model.config.bias:
        for name in [name for name in own if name.startswith(("blocks.", "final_norm")) and name.endswith("weight")]:
            own[name.removesuffix("weight") + "bias"] = torch.zeros(own[name].shape[0])
    return {
        exported_name(family, name): value.T if is_transposed(family, name) else value for name, value in own.items()
    }


def _copy_tokenizer(source: Path, target: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in _OURS and path.suffix not in (".safetensors", ".bin"):
            shutil.copyfile(path, target / path.name)


def _special_tokens(folder: Path) -> dict[str, int]:
    """Ids by role (`eos_token`, ...) and by text (`<|end|>`), from the tokenizer's files; {} without any."""
    if not (folder / "tokenizer.json").is_file():
        return {}
    raw = read_json(folder / "tokenizer.json")
    ids = {token["content"]: token["id"] for token in raw.get("added_tokens") or []}
    vocabulary = raw.get("model", {}).get("vocab")
    path = folder / "tokenizer_config.json"
    settings = read_json(path) if path.is_file() else {}
    for role in ("bos_token", "eos_token", "pad_token"):
        token = settings.get(role)
        text = token.get("content") if isinstance(token, dict) else token
        number = ids.get(text, vocabulary.get(text) if isinstance(vocabulary, dict) else None)
        if number is not None:
            ids[role] = number
    return ids
