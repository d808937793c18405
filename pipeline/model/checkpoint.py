"""Models on disk: the Hugging Face folder layout, in and out, safetensors only (never pickle).

`save` writes a folder that transformers, vLLM and llama.cpp's converter read without code of ours, with a manifest of
hashes; `load` reads such folders, ours and theirs, and checks the manifest; `fetch` brings pinned open weights. Neither
safetensors nor torch notices a flipped bit: the manifest does. What no weight can hold (a prefix, a prompt, a
bottleneck) stands in `adapter/`: `load` puts it back, other readers see the model without it.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline import files
from pipeline.config import Start, UserError
from pipeline.model.additions import attach
from pipeline.model.gpt import GPT, ModelConfig
from pipeline.model.layout import exported_config, exported_name, internal_name, is_transposed, model_config

__all__ = [
    "exported_name",
    "fetch",
    "internal_name",
    "labels",
    "load",
    "read_json",
    "read_tensors",
    "save",
    "verify",
    "weights_sha256",
    "write_tensors",
]

HEAD = "language/head.safetensors"
"""What a classifier's architecture has no place for, kept so that language can be scored and trained on again."""
WEIGHTS, INDEX, MANIFEST = "model.safetensors", "model.safetensors.index.json", "manifest.json"
# Constants that old versions of transformers saved among the weights.
_NOT_WEIGHTS = re.compile(r"(\.attn\.(masked_)?bias|rotary_emb\.inv_freq)$")
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
        UserError: no such folder, a file that differs from the manifest, pickled weights, another family, or
            tensors that are missing, left over or of another shape; the text names them.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise UserError(f"{folder}: no config.json there; expected a model folder in the Hugging Face layout")
    verify(folder)
    config = model_config(read_json(config_path), str(config_path))
    tensors = _internal_tensors(config, _read_weights(folder))
    model = GPT(config, None)
    if (folder / HEAD).is_file():
        tensors |= read_tensors(folder / HEAD)
    if "score.weight" in tensors:
        with torch.device("meta"):
            model.score = nn.Linear(config.d_model, tensors["score.weight"].shape[0], bias=False)
        if "head.weight" not in tensors and not config.tie_embeddings:
            model.head = None
    if config.tie_embeddings:
        tensors.setdefault("head.weight", tensors.get("embed.weight", torch.empty(0)))
    _check_tensors(folder, config.family, model.state_dict(), tensors)
    model.load_state_dict(tensors, assign=True)
    model.requires_grad_(True)
    attach(model, folder / "adapter")
    model.to(device)
    model.tie()
    return model.eval()


def labels(folder: Path) -> list[str] | None:
    """The class names of a classifier's folder in the order of its scores; None for a language model."""
    raw = read_json(folder / "config.json")
    if not any(name.endswith("ForSequenceClassification") for name in raw.get("architectures") or []):
        return None
    return [name for _, name in sorted((int(number), name) for number, name in raw["id2label"].items())]


def verify(folder: Path) -> None:
    """Compares every file with manifest.json; a folder without a manifest (not ours) passes.

    Raises:
        UserError: names the file that is missing or differs.
    """
    if not (folder / MANIFEST).is_file():
        return
    for name, expected in sorted(read_json(folder / MANIFEST).items()):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing, {MANIFEST} lists it; restore the folder (dvc checkout)")
        if (found := files.sha256_of(folder / name)) != expected:
            raise UserError(
                f"{folder / name}: sha256 is {found}, {MANIFEST} says {expected}; the file was changed or "
                "damaged: restore the folder (dvc checkout) or make it again (dvc repro --force)"
            )


def weights_sha256(folder: Path) -> str:
    """SHA-256 of model.safetensors; when in several files, of their concatenated hashes in name order."""
    names = _weight_files(folder)
    hashes = [files.sha256_of(folder / name) for name in names]
    return hashes[0] if names == [WEIGHTS] else hashlib.sha256("".join(hashes).encode()).hexdigest()


def fetch(start: Start, cache: Path) -> Path:
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
    found = weights_sha256(folder)
    if start.sha256 is None:
        raise UserError(
            f"params.yaml: pretrain.start.sha256 is null; open weights are pinned; if you trust these, write {found}"
        )
    if found != start.sha256:
        raise UserError(
            f"{folder}: sha256 of the weights is {found}, "
            f"params.yaml pretrain.start.sha256 says {start.sha256}; "
            "these are other weights than were pinned"
        )
    return folder


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
            allow_patterns=["*.safetensors", "*.json", "*.txt"],
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{repository}@{revision}: not downloaded: {error}; "
            "check the id, the revision and the network, or "
            "set pretrain.start.kind to folder and path to a local copy"
        ) from error
    return Path(path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes one safetensors file, whole or not at all; equal tensors give equal bytes."""
    ready = {name: tensors[name].detach().to("cpu").contiguous() for name in sorted(tensors)}
    with files.replacing(path) as temporary:
        save_file(ready, temporary, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads one safetensors file. Raises UserError when it is missing or damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not readable as safetensors: {error}; restore or download the file again") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file of a model folder. Raises UserError when it is missing or damaged."""
    try:
        return files.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}; restore or download the file again") from None


def _weight_files(folder: Path) -> list[str]:
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / INDEX).is_file():
        return sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    pickled = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
    raise UserError(
        f"{folder}: no {WEIGHTS}"
        + (
            f", only {', '.join(pickled)}: pickled weights can run code and are not read; convert them to safetensors"
            if pickled
            else "; expected a model folder in the Hugging Face layout"
        )
    )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in _weight_files(folder):
        tensors |= read_tensors(folder / name)
    return {name: value for name, value in tensors.items() if not _NOT_WEIGHTS.search(name)}


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


def _internal_tensors(config: ModelConfig, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {}
    for key, value in theirs.items():
        name = internal_name(config.family, key)
        turned = value.T if is_transposed(config.family, name) and value.dim() == 2 else value
        ours[name] = turned.to(torch.float32).contiguous()
    if config.family == "gpt2" and not config.bias:
        return {name: value for name, value in ours.items() if not name.endswith("bias")}
    return ours


def _check_tensors(folder: Path, family: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing = sorted(exported_name(family, name) for name in expected.keys() - found.keys())
    extra = sorted(exported_name(family, name) for name in found.keys() - expected.keys())
    odd = [
        f"{exported_name(family, name)} is {list(found[name].shape)}, expected {list(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = [
        f"{what}: {', '.join(names[:5])}{' and more' if len(names) > 5 else ''} ({len(names)})"
        for what, names in (("missing", missing), ("not of this model", extra), ("other shape", odd))
        if names
    ]
    if problems:
        raise UserError(
            f"{folder}: tensors do not fit config.json; {'; '.join(problems)}; "
            "take config.json and weights from "
            "the same model"
        )


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
