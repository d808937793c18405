"""Models on disk: the Hugging Face folder layout, saved and loaded, safetensors only (never pickle).

`save` writes a folder that transformers, peft and lm-eval read without code of ours and with equal answers, with a
manifest of hashes; `load` reads such folders, ours and theirs, and checks the manifest, since neither safetensors nor
torch notices a flipped bit. README.md in the folder has the code. llama.cpp reads the file of gguf_format.py. Adapters
that do not merge (a prefix, a prompt, a bottleneck) are in `adapter/`: `load` adds them, other readers load the model
without them. A folder with base.json holds an adapter only (pipeline/model/adapter_folder.py): `load` completes its
base, `write_whole` writes it with all weights.

A folder may be damaged or hostile: links, config, index and the headers of the weights are checked before a number is
read, and the numbers before they are used (pipeline/foreign.py, weights.py, inspection.py).
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline import files, foreign
from pipeline.errors import UserError
from pipeline.foreign import BASE
from pipeline.model import adapter_folder, library_folder, memory, readme, weights
from pipeline.model.adapter_folder import ADAPTER, Base
from pipeline.model.adapters import attach, has_additions
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.model.hf_config import exported_config, labels_in, problem_type
from pipeline.model.hf_format import exported_tensors, internal_name, is_transposed
from pipeline.model.inspection import HEAD, MANIFEST, NOT_WEIGHTS, empty, inspect, verify
from pipeline.model.library import LibraryModel
from pipeline.model.weights import WEIGHTS, Header, write_tensors
from pipeline.tokenizer import VOCABULARY, Tokenizer, export
from pipeline.tokenizer.export import InputFormat


def save(  # noqa: PLR0913 - each is one optional part of the folder
    model: GPT,
    folder: Path,
    *,
    tokenizer: Path | None = None,
    labels: list[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    adapter: Callable[[Path], None] | None = None,
    base: Base | None = None,
    more: Callable[[Path], None] | None = None,
) -> None:
    """Writes a plain model (merged, no adapter inside) as a complete folder; equal models, equal bytes.

    Args:
        model: saved as <Family>ForSequenceClassification if it has `score`, else as a language model.
        folder: replaced as a whole.
        tokenizer: a folder whose vocabulary is copied in; its special tokens go into the configs. With `metadata`,
            tokenizer.json and tokenizer_config.json are written for the task (pipeline/tokenizer/export.py).
        labels: class names in the order of `score`'s rows; needed with `score`.
        metadata: the content of tohum.json (pipeline/prompts/spec.py); with `tokenizer`, README.md says how to
            use the folder in transformers.
        adapter: writes the adapter into the folder that it is called with, `<folder>/adapter`.
        base: written as base.json instead of weights; the model may have its adapter inside.
        more: writes further files into the folder that it is called with.

    Raises:
        UserError: labels that do not fit the classification head.
    """
    rows = 0 if model.score is None else model.score.out_features
    if len(labels or []) != rows or len(set(labels or [])) != rows:
        raise UserError(
            f"{folder}: {len(labels or [])} labels {labels} for a classification head of {rows}; "
            "expected one distinct name per row"
        )
    with files.replace_folder(folder) as temporary:
        input_format = None
        if tokenizer is not None:
            input_format = _write_tokenizer(tokenizer, temporary, metadata, model.config.context_length)
        _write_network(model, temporary, labels, metadata, base)
        if input_format is not None:
            _write_ends(temporary / "generation_config.json", input_format.ends)
        if metadata is not None:
            files.write_json(temporary / "tohum.json", dict(metadata))
        if adapter is not None:
            adapter(temporary / ADAPTER)
        if metadata is not None and input_format is not None:
            _write_readme(temporary, metadata, model, input_format)
        if more is not None:
            more(temporary)
        _write_manifest(temporary)


def _write_network(
    model: GPT, folder: Path, labels: list[str] | None, metadata: Mapping[str, Any] | None, base: Base | None
) -> None:
    """Writes the configs, and the weights or base.json; arguments as of `save`."""
    if isinstance(model, LibraryModel):
        library_folder.write(model, folder, labels, _special_tokens(folder), all_weights=base is None)
    else:
        _write_configs(model, folder, labels)
        if base is None:
            _write_weights(model, folder)
    if labels is not None and (kind := problem_type(metadata)):
        files.write_json(folder / "config.json", files.read_json(folder / "config.json") | kind)
    if base is not None:
        files.write_json(folder / BASE, base.model_dump())


def write_whole(folder: Path, target: Path) -> None:
    """Writes a model folder with all weights: a whole one as it is, of an adapter the bytes that `merged: true` gives.

    Args:
        folder: a model folder.
        target: replaced as a whole.

    Raises:
        UserError: as `load`.
    """
    verify(folder)
    base = adapter_folder.read(folder)
    with files.replace_folder(target) as temporary:
        if base is None:
            shutil.copytree(folder, temporary, dirs_exist_ok=True)
            return
        left_out = shutil.ignore_patterns(BASE, MANIFEST, "README.md")
        shutil.copytree(folder, temporary, dirs_exist_ok=True, ignore=left_out)
        model = _completed(folder, base)
        if isinstance(model, LibraryModel):
            library_folder.write(model, temporary, labels(folder), _special_tokens(folder))
            for name in ("config.json", "generation_config.json"):  # written by the library, without our keys
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, temporary / name)
        else:
            _write_weights(model, temporary)
        metadata = foreign.read_object(folder / "tohum.json") if (folder / "tohum.json").is_file() else None
        if metadata is not None and any((folder / name).is_file() for name in VOCABULARY):
            task = export.first_task(metadata)
            input_format = export.describe(Tokenizer.load(folder), task, model.config.context_length)
            _write_readme(temporary, metadata, model, input_format)
        _write_manifest(temporary)


def _write_weights(model: GPT, folder: Path) -> None:
    """Writes the weights of one of our families; a classifier's language head is in a file of its own."""
    write_tensors(folder / WEIGHTS, exported_tensors(model))
    if model.score is not None and model.head is not None and not model.config.tie_embeddings:
        (folder / HEAD).parent.mkdir()
        write_tensors(folder / HEAD, {"head.weight": model.head.weight})


def _write_readme(folder: Path, metadata: Mapping[str, Any], model: GPT, input_format: InputFormat) -> None:
    architecture = model.architecture if isinstance(model, LibraryModel) else "decoder"
    content = readme.text(
        export.first_task(metadata), model.config.family, input_format, folder / ADAPTER, architecture
    )
    files.write_text(folder / "README.md", content)


def _write_manifest(folder: Path) -> None:
    """The hashes of all files; written last."""
    written = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    files.write_json(folder / MANIFEST, {name: files.sha256_of(path) for name, path in written.items()})


def load(folder: Path, device: str = "cpu") -> GPT:
    """Reads a model folder, ours or one that transformers saved: float32, evaluation mode, adapters added.

    Raises:
        UserError: no such folder, a file that differs from the manifest, pickled weights, another family, tensors that
            are missing, left over, of another shape or type, or not finite; links out of the folder, and anything else
            that no model folder has; an adapter whose base is missing or has other weights. The text names the file.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"{folder}: no config.json there; expected a model folder in the Hugging Face layout")
    verify(folder)
    base = adapter_folder.read(folder)
    model = _plain(folder) if base is None else _completed(folder, base)
    model.requires_grad_(True)
    attach(model, folder / ADAPTER)
    model.to(device)
    model.tie()
    return model.eval()


def _plain(folder: Path) -> GPT:
    """The network of a folder's weights, without adapters."""
    if library_folder.is_library(folder):
        return library_folder.load(folder)
    config, headers = inspect(folder)
    model = empty(config, headers)
    model.load_state_dict(_read_weights(folder, config, headers), assign=True)
    return model


def _completed(folder: Path, base: Base) -> GPT:
    """The base with the head of a folder's adapter, and the adapter itself where it merges into weights."""
    place = adapter_folder.find(folder, base)
    model = _plain(place)
    attach(model, place / ADAPTER)
    if has_additions(model):
        raise UserError(
            f"{folder}: its base {place} has virtual tokens or bottleneck adapters, which are not part of its weights; "
            "train the adapter from a model that has none"
        )
    if base.weights != "float32":  # the adapter was trained beside rounded weights
        model.requires_grad_(False)
        memory.lower(model, base.weights)
        memory.restore(model)
    adapter_folder.merge_into(model, folder)
    model.tie()
    return model


def labels(folder: Path) -> list[str] | None:
    """The class names of a classifier's folder in the order of its scores; None for a language model."""
    path = folder / "config.json"
    return labels_in(foreign.read_object(path), str(path))


def _write_configs(model: GPT, folder: Path, labels: list[str] | None) -> None:
    """Writes config.json and generation_config.json of one of our families."""
    special = _special_tokens(folder)
    bos, eos, pad = (special.get(name) for name in ("bos_token", "eos_token", "pad_token"))
    files.write_json(folder / "config.json", exported_config(model.config, labels, bos, eos, pad))
    generation = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    files.write_json(folder / "generation_config.json", generation)


def _write_ends(path: Path, ends: tuple[int, ...]) -> None:
    """Says in generation_config.json where an answer ends, where more than one token ends it."""
    if len(ends) > 1 and path.is_file():
        files.write_json(path, files.read_json(path) | {"eos_token_id": list(ends)})


def _read_weights(folder: Path, config: ModelConfig, expected: Mapping[str, Header]) -> dict[str, Tensor]:
    """The tensors of a folder under our names, float32."""
    tensors: dict[str, Tensor] = {}
    for path in sorted({header.file for header in expected.values()} - {folder / HEAD}):
        for key, value in weights.read_tensors(path).items():
            name = internal_name(config.family, key)
            if NOT_WEIGHTS.search(key) or name not in expected:
                continue
            transposed = value.T if is_transposed(config.family, name) and value.dim() == 2 else value
            tensors[name] = transposed.to(torch.float32).contiguous()
            if value.dtype == torch.float64:  # numbers beyond float32 became infinite
                weights.require_finite(tensors[name], key, path)
    if (folder / HEAD).is_file():
        tensors |= weights.read_tensors(folder / HEAD)
    if config.tie_embeddings:
        tensors.setdefault("head.weight", tensors["embed.weight"])
    return tensors


def _write_tokenizer(
    source: Path, target: Path, metadata: Mapping[str, Any] | None, context_length: int
) -> InputFormat | None:
    """Copies a vocabulary and writes its files for the task; returns the format of inputs, None without a task."""
    for name in VOCABULARY:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if metadata is None:
        return None
    tokenizer = Tokenizer.load(target)
    input_format = export.describe(tokenizer, export.first_task(metadata), context_length)
    export.write(target, tokenizer, input_format)
    return input_format


def _special_tokens(folder: Path) -> dict[str, int]:
    """Ids of bos_token, eos_token and pad_token, from the tokenizer's files; {} without any."""
    if not (folder / "tokenizer.json").is_file():
        return {}
    raw = foreign.read_json(folder / "tokenizer.json")
    ids = {token["content"]: token["id"] for token in raw.get("added_tokens") or []}
    vocabulary = raw.get("model", {}).get("vocab")
    path = folder / "tokenizer_config.json"
    settings = foreign.read_json(path) if path.is_file() else {}
    roles = {}
    for role in ("bos_token", "eos_token", "pad_token"):
        token = settings.get(role)
        text = token.get("content") if isinstance(token, dict) else token
        number = ids.get(text, vocabulary.get(text) if isinstance(vocabulary, dict) else None)
        if number is not None:
            roles[role] = number
    return roles
