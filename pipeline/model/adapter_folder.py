"""Model folders that hold an adapter only: base.json names their base model by hash, `add` completes the base.

A recipe over a large base changes few weights, and a whole copy of the base for each recipe fills the disk. Such a
folder has `adapter/` (the classification head among its tensors), config, tokenizer and tohum.json as a whole folder
has, and base.json instead of weights. The base is the folder of that name beside it; open weights that pretraining left
unchanged are read from the downloads as well. `checkpoint.load` is the one reader: base, hash, head, adapter. It gives
the bits that the same recipe stores with `merged: true`.

origin.json in a model folder names the open weights that the model was made from.

Shapes: r rank.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline import files, foreign
from pipeline.config.section import Section, validated
from pipeline.errors import UserError
from pipeline.foreign import AGAIN, BASE, ORIGIN, shown, whole
from pipeline.model.adapters import ADDED, CONFIG, TENSORS
from pipeline.model.gpt import GPT
from pipeline.model.hf_config import labels_in
from pipeline.model.hf_format import exported_name, internal_name
from pipeline.model.inspection import verify
from pipeline.model.library import LibraryModel
from pipeline.model.weights import headers, read_tensors, require_floats
from pipeline.paths import DOWNLOADS

ADAPTER = "adapter"
MIN_NORM = 1e-30
"""Lower bound of a row's norm: a row of zeros (pruned weights) has no direction; it stays zero."""
_PEFT = re.compile(r"^base_model\.(model\.)?")


class Origin(Section):
    """The open weights that a model was made from: the content of origin.json."""

    repository: str | None = Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$")
    """Repository id on the Hugging Face Hub; null for a folder of the user."""
    revision: str | None = Field(pattern="^[0-9a-f]{40}$")
    """Commit of the repository; null for a folder."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of all their files that are read (pipeline/foreign.py)."""
    licence: str | None
    """Licence of the open weights."""
    unchanged: bool
    """Whether the model has the numbers of the open weights, so that either can serve as base of an adapter."""


class Base(Section):
    """The base model of an adapter: the content of base.json."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][\w.-]*$")
    """Name in the graph: the folder beside the adapter's."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of its weights and config.json."""
    weights: Literal["float32", "bfloat16"]
    """Precision that the frozen weights had in training (compute.weights): the adapter belongs to the rounded ones."""
    origin: Origin | None
    """The open weights that the base was made from; null: trained from scratch."""

    @property
    def peft_name(self) -> str:
        """peft's `base_model_name_or_path`: the repository where the base is its weights, else a relative path."""
        if self.origin is not None and self.origin.unchanged and self.origin.repository is not None:
            return self.origin.repository
        return f"../../{self.name}"  # relative to <models>/<recipe>/adapter


def describe(folder: Path, weights: Literal["float32", "bfloat16"] = "float32") -> Base:
    """The content of base.json for a base in `folder`, from its files; `weights`: its precision in training."""
    origin = None
    if (folder / ORIGIN).is_file():
        origin = validated(Origin, foreign.read_object(folder / ORIGIN), "", str(folder / ORIGIN))
    return Base(name=folder.name, sha256=foreign.weights_sha256(folder), weights=weights, origin=origin)


def read(folder: Path) -> Base | None:
    """The base that a folder's adapter was trained on; None for a folder with weights of its own.

    Raises:
        UserError: a base.json that is damaged, or beside weights.
    """
    if not (folder / BASE).is_file():
        return None
    if odd := sorted(path.name for path in folder.glob("*.safetensors")):
        raise UserError(f"{folder}: has {BASE} and {odd[0]}, expected an adapter only or a whole model; {AGAIN}")
    base: Base = validated(Base, foreign.read_object(folder / BASE), "", str(folder / BASE))
    return base


def find(folder: Path, base: Base) -> Path:
    """The folder of the base: beside the adapter's, or the downloaded open weights with the same numbers.

    Raises:
        UserError: the base is missing or has other weights; the text says how to get it.
    """
    beside = folder.parent / base.name
    restore = f"`dvc checkout models/{base.name}`, or `dvc pull models/{base.name}` from a remote"
    if (beside / "config.json").is_file():
        verify(beside)
        sha256 = foreign.weights_sha256(beside)
        if sha256 == base.sha256:
            return beside
        fault = (
            f"{folder}: its adapter was trained on a {base.name} whose weights and config.json have sha256 "
            f"{base.sha256}, {beside} has {sha256}; restore that base ({restore}), or train the adapter again "
            f"(`dvc repro finetune@{folder.name}`)"
        )
    else:
        fault = (
            f"{folder}: holds an adapter only, and its base {beside} is not there; restore the base ({restore}), or "
            f"make it again (`dvc repro pretrain`)"
        )
    if (downloaded := _downloaded(base.origin)) is not None:
        return downloaded
    raise UserError(fault)


def _downloaded(origin: Origin | None) -> Path | None:
    """The downloaded open weights, if the base has exactly their numbers and they are the pinned ones."""
    if origin is None or not origin.unchanged or origin.repository is None or origin.revision is None:
        return None
    return foreign.downloaded(origin.repository, origin.revision, origin.sha256, DOWNLOADS)


def add_revision(adapter: Path, base: Base | None) -> None:
    """Adds the base's commit to adapter_config.json where the config names a repository."""
    if base is None or base.origin is None or base.peft_name != base.origin.repository:
        return
    config = foreign.read_object(adapter / CONFIG)
    files.write_json(adapter / CONFIG, config | {"revision": base.origin.revision})


def merge_into(model: GPT, folder: Path) -> None:
    """Adds the classification head of an adapter folder to its base, and the adapter where it merges into weights.

    Prefixes, prompts and bottlenecks do not: `adapters.attach` adds them.

    Raises:
        UserError: tensors that do not fit the base, or an adapter of a type or with settings that are not supported.
    """
    path = folder / ADAPTER / TENSORS
    config, header_of = foreign.read_object(folder / ADAPTER / CONFIG), headers(path)
    require_floats(header_of, path)
    kinds = {"LORA": _merge_lora, "IA3": _merge_ia3} | dict.fromkeys(ADDED)
    if (kind := config.get("peft_type")) not in list(kinds):
        raise UserError(
            f"{folder / ADAPTER / CONFIG}: peft_type is {shown(kind)}, expected one of: {', '.join(kinds)}; {AGAIN}"
        )
    merges = kinds[kind]
    # virtual tokens have names without the prefix, and so has a bottleneck
    tensors = {_PEFT.sub("", key): value.to(torch.float32) for key, value in read_tensors(path).items()}
    raw = foreign.read_object(folder / "config.json")
    _add_head(model, len(labels_in(raw, str(folder / "config.json")) or ()), tensors, path)
    if merges is None and (odd := [key for key in header_of if _PEFT.match(key) and _PEFT.sub("", key) in tensors]):
        raise UserError(
            f"{path}: {shown(odd[0])} is no weight of a classification head of {folder / 'config.json'}; {AGAIN}"
        )
    if merges is not None:
        merges(model, _by_projection(tensors, model, path), config, path)


def library_name(model: GPT, name: str) -> str:
    """The name of one of our modules or weights in transformers."""
    return name.removeprefix("net.") if isinstance(model, LibraryModel) else exported_name(model.config.family, name)


def own_name(model: GPT, name: str) -> str:
    """The inverse of `library_name`."""
    return f"net.{name}" if isinstance(model, LibraryModel) else internal_name(model.config.family, name)


def head_weights(model: GPT) -> dict[str, Tensor]:
    """The classification head's weights by their names in transformers; {} without one."""
    if isinstance(model, LibraryModel):
        return dict(model.head_weights()) if model.is_classifier else {}
    return {} if model.score is None else {"score.weight": model.score.weight}


def lora_scale(alpha: float, rank: int, rank_stabilised: bool) -> float:
    """Factor of a low-rank update: alpha / r, or alpha / sqrt(r) (rsLoRA: Kalajdzievski 2023, equation 5)."""
    return alpha / (math.sqrt(rank) if rank_stabilised else rank)


@torch.no_grad()
def lora_merged(weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None) -> Tensor:
    """W + scale B A, its rows scaled to norm `magnitude` if given (DoRA): [out, in].

    On the CPU whatever the tensors' device, so that an adapter gives the same bits wherever and whenever it is merged.

    Args:
        weight: W, [out, in].
        a: A, [r, in].
        b: B, [out, r].
        scale: of the update.
        magnitude: norms of the merged rows, [out]; None: as they come.
    """
    merged = weight.cpu() + (b.cpu() @ a.cpu()) * scale
    if magnitude is not None:
        merged *= (magnitude.cpu() / merged.norm(dim=1).clamp(min=MIN_NORM))[:, None]
    return merged


@torch.no_grad()
def ia3_merge(projection: nn.Linear, scale: Tensor, inputs: bool) -> None:
    """Multiplies an IA3 vector into a projection: its weight's columns (inputs), or its rows and the bias."""
    projection.weight.mul_(scale if inputs else scale[:, None])
    if projection.bias is not None and not inputs:
        projection.bias.mul_(scale)


def _add_head(model: GPT, labels: int, tensors: dict[str, Tensor], path: Path) -> None:
    """Gives the model a classification head of so many labels with the weights that are taken out of `tensors`."""
    if labels and (model.score is None or model.score.out_features != labels):
        model.add_score(labels, torch.Generator())  # its weights are replaced at once
    for name, weight in head_weights(model).items() if labels else ():
        value = tensors.pop(name, None)
        if value is None or value.shape != weight.shape:
            raise UserError(
                f"{path}: the head's {name} is {None if value is None else list(value.shape)}, a {model.config.family} "
                f"model with {labels} labels needs {list(weight.shape)}; use the config.json and the base model the "
                "adapter was made for"
            )
        weight.data.copy_(value)


def _by_projection(tensors: Mapping[str, Tensor], model: GPT, path: Path) -> dict[str, dict[str, Tensor]]:
    """Our name of a projection -> peft's names of its tensors, without `.weight` -> tensor."""
    parts: dict[str, dict[str, Tensor]] = {}
    known = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for key, value in tensors.items():
        exported, _, part = key.removesuffix(".weight").rpartition(".")
        name = own_name(model, exported)
        if name not in known:
            raise UserError(
                f"{path}: {shown(key)} has no place in a {model.config.family} model; use the base model the adapter "
                "was made for"
            )
        parts.setdefault(name, {})[part] = value
    return parts


def _merge_lora(model: GPT, parts: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any], path: Path) -> None:
    """Merges low-rank updates in peft's layout into the projections."""
    unsupported = sorted(
        key for key in ("rank_pattern", "alpha_pattern", "bias") if config.get(key) and config[key] != "none"
    )
    if unsupported:
        raise UserError(f"{path.parent / CONFIG}: sets {unsupported[0]}, expected LoRA of one rank; {AGAIN}")
    rank = whole(config.get("r"), f"{path.parent / CONFIG}: r", 1 << 20)
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise UserError(f"{path.parent / CONFIG}: lora_alpha is {shown(alpha)}, expected a number; {AGAIN}")
    scale = lora_scale(float(alpha), rank, config.get("use_rslora") is True)
    for name, own in parts.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        out, inputs = linear.weight.shape
        shapes: dict[str, tuple[int, ...]] = {"lora_A": (rank, inputs), "lora_B": (out, rank)}
        if config.get("use_dora") is True:
            shapes["lora_magnitude_vector"] = (out,)
        _require_shapes(own, shapes, name, path)
        merged = lora_merged(linear.weight, own["lora_A"], own["lora_B"], scale, own.get("lora_magnitude_vector"))
        linear.weight.data.copy_(merged)


def _merge_ia3(model: GPT, parts: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any], path: Path) -> None:
    """Merges IA3's vectors in peft's layout ([out, 1], or [1, in] in the MLP) into the projections."""
    scaled_inputs = config.get("feedforward_modules") or []
    if not isinstance(scaled_inputs, list) or not all(isinstance(name, str) for name in scaled_inputs):
        raise UserError(
            f"{path.parent / CONFIG}: feedforward_modules is {shown(scaled_inputs)}, expected names; {AGAIN}"
        )
    for name, own in parts.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        out, inputs = linear.weight.shape
        of_inputs = f".{library_name(model, name)}".endswith(tuple(f".{end}" for end in scaled_inputs))
        _require_shapes(own, {"ia3_l": (1, inputs) if of_inputs else (out, 1)}, name, path)
        ia3_merge(linear, own["ia3_l"].flatten(), of_inputs)


def _require_shapes(own: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], name: str, path: Path) -> None:
    """Raises UserError for tensors of a projection that are missing, left over or of another shape."""
    shapes = {part: tuple(value.shape) for part, value in own.items()}
    if shapes != dict(expected):
        raise UserError(
            f"{path}: the tensors of {name} have shapes {shown(shapes)}, expected {shown(dict(expected))}; use the "
            "base model the adapter was made for"
        )
