"""Checks of a model folder before its numbers are read: config, index and headers must fit each other.

`inspect` returns the config and the headers of the weights, `verify` compares the files with the manifest of hashes,
`empty` builds the network without storage.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from pipeline import files, foreign
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, shown
from pipeline.model import weights
from pipeline.model.config import ModelConfig
from pipeline.model.gpt import GPT
from pipeline.model.hf_config import labels_in, model_config
from pipeline.model.hf_format import exported_name, internal_name, is_transposed
from pipeline.model.weights import Header

HEAD = "language/head.safetensors"
"""The language head of a classifier, kept for language modelling; transformers' classifiers have none."""
MANIFEST = "manifest.json"
# Constants that old versions of transformers saved among the weights.
NOT_WEIGHTS = re.compile(r"(\.attn\.(masked_)?bias|rotary_emb\.inv_freq)$")


def inspect(folder: Path) -> tuple[ModelConfig, dict[str, Header]]:
    """The config of a folder and the headers of its tensors under our names; no number is read.

    Raises:
        UserError: pickled weights, another family, links out of the folder, and tensors that are missing, left over,
            or of another shape or type.
    """
    path, members = folder / "config.json", foreign.members(folder)
    raw = foreign.read_object(path)
    config, names = model_config(raw, str(path)), labels_in(raw, str(path))
    for name in ("tohum.json", "generation_config.json"):
        if name in members:
            foreign.read_object(members[name])
    headers = _internal_headers(folder, config)
    if HEAD in members:
        if odd := sorted(weights.headers(folder / HEAD).keys() ^ {"head.weight"}):
            raise UserError(f"{folder / HEAD}: {shown(odd[0])} is missing or too many, expected head.weight; {AGAIN}")
        headers |= weights.headers(folder / HEAD)
    weights.require_floats(headers, folder)
    rows = headers["score.weight"].shape[0] if "score.weight" in headers and headers["score.weight"].shape else 0
    if "score.weight" in headers and names is not None and len(names) != rows:
        raise UserError(f"{path}: id2label names {len(names)} classes, score.weight has {rows} rows; {AGAIN}")
    _check_tensors(folder, config, headers)
    return config, headers


def verify(folder: Path) -> None:
    """Compares every file with manifest.json; a folder without a manifest (not ours) passes.

    Raises:
        UserError: names the file that is missing, differs or is not listed.
    """
    if not (folder / MANIFEST).is_file():
        return
    listed = foreign.read_object(folder / MANIFEST)
    for name, expected in sorted(listed.items()):
        if Path(name).is_absolute() or ".." in Path(name).parts or not isinstance(expected, str):
            raise UserError(
                f"{folder / MANIFEST}: says {shown(name)}: {shown(expected)}, expected a file of this folder and its "
                f"SHA-256; {AGAIN}"
            )
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing, {MANIFEST} lists it; restore the folder (dvc checkout)")
        if (found := files.sha256_of(foreign.regular(folder / name, folder))) != expected:
            raise UserError(
                f"{folder / name}: sha256 is {found}, {MANIFEST} says {expected}; the file was changed or "
                "damaged: restore the folder (dvc checkout) or make it again (dvc repro --force)"
            )
    if odd := sorted(foreign.members(folder).keys() - listed.keys() - {MANIFEST}):
        raise UserError(
            f"{folder / odd[0]}: {MANIFEST} does not list it; the file was added later: remove it, or restore the "
            "folder (dvc checkout)"
        )


def empty(config: ModelConfig, headers: Mapping[str, Header]) -> GPT:
    """The network without storage, with the heads that the folder has."""
    model = GPT(config, None)
    if "score.weight" in headers:
        with torch.device("meta"):
            model.score = nn.Linear(config.d_model, headers["score.weight"].shape[0], bias=False)
        if "head.weight" not in headers and not config.tie_embeddings:
            model.head = None
    return model


def _check_tensors(folder: Path, config: ModelConfig, headers: Mapping[str, Header]) -> None:
    """Compares the weights with config.json. Layers are counted first: a million would take hours to build."""
    layers = len({name.split(".")[1] for name in headers if name.startswith("blocks.")})
    family, expected_layers = config.family, config.n_layers
    model = empty(config.model_copy(update={"n_layers": max(1, min(expected_layers, layers + 1))}), headers)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = {name: header.shape for name, header in headers.items()}
    if config.tie_embeddings and "embed.weight" in shapes:
        shapes.setdefault("head.weight", shapes["embed.weight"])
    missing = sorted(exported_name(family, name) for name in expected.keys() - shapes.keys())
    extra = sorted(exported_name(family, name) for name in shapes.keys() - expected.keys())
    odd = [
        f"{exported_name(family, name)} is {list(shapes[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    extra = [name if re.fullmatch(r"[\w.-]{1,80}", name) else shown(name) for name in extra]
    problems = [
        f"{problem}: {', '.join(names[:5])}{' and more' if len(names) > 5 else ''} ({len(names)})"
        for problem, names in (("missing", missing), ("not of this model", extra), ("other shape", odd))
        if names
    ]
    if expected_layers > layers:
        problems.insert(0, f"{expected_layers} layers expected, {layers} found")
    if problems:
        raise UserError(
            f"{folder}: tensors do not fit config.json; {'; '.join(problems)}; "
            "take config.json and weights from "
            "the same model"
        )


def _internal_headers(folder: Path, config: ModelConfig) -> dict[str, Header]:
    """The headers of a folder's weights under our names, with shapes as we keep them."""
    headers: dict[str, Header] = {}
    for key, header in weights.folder_headers(folder).items():
        if NOT_WEIGHTS.search(key):
            continue
        name = internal_name(config.family, key)
        if config.family == "gpt2" and not config.bias and name.endswith("bias"):
            continue
        if name in headers:
            raise UserError(f"{header.file}: holds {shown(key)} twice, with and without its root; {AGAIN}")
        transposed = is_transposed(config.family, name) and len(header.shape) == 2
        headers[name] = header._replace(shape=header.shape[::-1]) if transposed else header
    return headers
