"""LoRA: a trained low-rank update of every chosen projection; the model is frozen (Hu et al. 2021).

h = W x + (alpha / rank) B A x, with B zero at the start (equation 3 and section 4.1); A is initialised as in peft,
Kaiming-uniform. Two settings vary it: `rank_stabilised` scales by alpha / sqrt(rank) (Kalajdzievski 2023, equation 5),
`decompose` trains the norm of every row of the weight apart from its direction (DoRA: Liu et al. 2024, equation 5). A
classification head trains in full. Adapters are written and read in peft's file layout, so peft loads ours onto the
exported base; peft itself is never imported (its import costs 12 s).

Shapes: r rank, N tokens, B examples.
"""

import copy
import math
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.section import Positive, Section
from pipeline.errors import UserError
from pipeline.foreign import read_json
from pipeline.model.adapter_folder import MIN_NORM, lora_merged, lora_scale, own_name
from pipeline.model.adapters import replace_module
from pipeline.model.gpt import GPT
from pipeline.model.weights import read_tensors
from pipeline.tuners import (
    Adapter,
    Encode,
    chosen_projections,
    head_tensors,
    modules_to_save,
    peft_place,
    peft_targets,
    projections,
    write_adapter,
)


class Settings(Section):
    """Rank, scale and places of the low-rank updates."""

    rank: Positive = Field(examples=[2])
    """Rank of the update: the number of rows of A and of columns of B."""
    alpha: float = Field(gt=0, examples=[4.0])
    """The update is scaled by alpha / rank, or by alpha / sqrt(rank) where it is rank-stabilised."""
    rank_stabilised: bool = Field(examples=[False, True])
    """Whether to scale by alpha / sqrt(rank) (rsLoRA), so that a larger rank does not make a smaller update."""
    decompose: bool = Field(examples=[False, True])
    """Whether to train each row's norm apart from its direction (DoRA)."""
    dropout: float = Field(ge=0, lt=1, examples=[0.0])
    """Dropout on the update's input, in training only."""
    targets: list[str] = Field(min_length=1, examples=[["attention", "mlp"]])
    """Projections with an update: those of `attention`, of the `mlp`, or by name as in transformers (`q_proj`,
    `query`)."""
    merged: bool = Field(examples=[True])
    """Whether the model folder holds all weights, the updates merged in; false: the adapter only, with the name and the
    hash of its base, which is merged when the folder is read."""


def build(settings: Settings) -> "LoRA":
    """The tuner of these settings."""
    return LoRA(settings)


class LoRALinear(nn.Module):
    """A frozen projection [out, in] and its low-rank update."""

    def __init__(self, base: nn.Linear, settings: Settings) -> None:
        super().__init__()
        self.base, self.rank = base, settings.rank
        self.scale = lora_scale(settings.alpha, settings.rank, settings.rank_stabilised)
        self.dropout = nn.Dropout(settings.dropout)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.zeros(settings.rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, settings.rank, device=device))
        self.magnitude = nn.Parameter(self._row_norms().clone()) if settings.decompose else None

    def initialise(self, generator: torch.Generator) -> None:
        """A uniform within 1 / sqrt(fan-in) (Kaiming, a = sqrt 5), B zero: the model starts unchanged."""
        bound = 1 / math.sqrt(self.base.in_features)
        start = torch.empty(self.lora_A.shape, device=generator.device).uniform_(-bound, bound, generator=generator)
        with torch.no_grad():
            self.lora_A.copy_(start)

    @property
    def weight(self) -> Tensor:
        """The projection's own weight; some networks of transformers look at its type."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] -> [N, out], or [B, ..., in] -> [B, ..., out]."""
        low_rank, scaled_B = F.linear(self.dropout(x), self.lora_A), self.lora_B * self.scale
        if self.magnitude is None:
            y: Tensor = self.base(x)
            return torch.addmm(y.flatten(0, -2), low_rank.flatten(0, -2), scaled_B.t()).view_as(y)
        update = F.linear(low_rank, scaled_B)
        # The norms are constants in the gradient: DoRA, section 4.3, half the memory, the same scores.
        scale = self.magnitude / self._row_norms().detach().clamp(min=MIN_NORM)
        scaled = (F.linear(x, self.base.weight.to(x.dtype)) + update) * scale
        return scaled if self.base.bias is None else scaled + self.base.bias

    def _weight(self) -> Tensor:
        weight: Tensor = self.base.weight + (self.lora_B @ self.lora_A) * self.scale
        return weight

    def _row_norms(self) -> Tensor:
        """Euclidean norm of each row of the updated weight: [out]."""
        norms: Tensor = self._weight().norm(dim=1)
        return norms

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The projection with the update added to its weight."""
        self.base.weight.copy_(lora_merged(self.base.weight, self.lora_A, self.lora_B, self.scale, self.magnitude))
        return self.base


class LoRA(Adapter):
    """Inserts, saves and merges the low-rank updates."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.whole = settings, settings.merged

    def insert(self, model: GPT, generator: torch.Generator, _encode: Encode) -> None:
        """Inserts an update into every chosen projection."""
        for name in chosen_projections(model, self.settings.targets):
            _insert(model, name, self.settings).initialise(generator)

    def merge(self, model: GPT) -> GPT:
        """A copy of the model with the updates added to its weights; `model` itself is unchanged."""
        plain = copy.deepcopy(model)
        for name, module in _lora_modules(plain).items():
            replace_module(plain, name, module.merged())
        return plain.requires_grad_(True)

    def save_adapter(self, model: GPT, folder: Path, base_name: str | None) -> None:
        """Writes adapter_config.json and adapter_model.safetensors as peft does; equal adapters give equal
        bytes.
        """
        modules = _lora_modules(model)
        tensors = {}
        for name, module in modules.items():
            place = peft_place(model, name)
            tensors[f"{place}.lora_A.weight"] = module.lora_A.detach()
            tensors[f"{place}.lora_B.weight"] = module.lora_B.detach()
            if module.magnitude is not None:
                tensors[f"{place}.lora_magnitude_vector"] = module.magnitude.detach()
        write_adapter(model, folder, tensors, self._config(model, list(modules)), base_name)

    def _config(self, model: GPT, names: list[str]) -> dict[str, Any]:
        return {
            "bias": "none",
            "fan_in_fan_out": model.config.family == "gpt2",
            "init_lora_weights": True,
            "lora_alpha": self.settings.alpha,
            "lora_dropout": self.settings.dropout,
            "modules_to_save": modules_to_save(model),
            "peft_type": "LORA",
            "r": self.settings.rank,
            "target_modules": peft_targets(model, names),
            "use_dora": self.settings.decompose,
            "use_rslora": self.settings.rank_stabilised,
        }


# peft's name of a tensor -> ours.
_TENSORS = {"lora_A": "lora_A", "lora_B": "lora_B", "lora_magnitude_vector": "magnitude"}


def load_adapter(model: GPT, folder: Path) -> None:
    """Inserts an adapter in peft's layout into a plain model and freezes the rest.

    Raises:
        UserError: an adapter of another type, with settings that are not supported, or with tensors that do not fit
            the model.
    """
    config = read_json(folder / "adapter_config.json")
    unsupported = sorted(
        key for key in ("rank_pattern", "alpha_pattern", "bias") if config.get(key) and config[key] != "none"
    )
    if config.get("peft_type") != "LORA" or unsupported:
        raise UserError(
            f"{folder}: an adapter of type {config.get('peft_type')} with {unsupported} set; expected LoRA of one "
            "rank: save it merged into its base instead"
        )
    tensors = read_tensors(folder / "adapter_model.safetensors")
    settings = Settings(
        rank=config["r"], alpha=config["lora_alpha"], dropout=config["lora_dropout"],
        rank_stabilised=config.get("use_rslora", False), decompose=config.get("use_dora", False),
        targets=["attention", "mlp"], merged=True,
    )  # fmt: skip
    model.requires_grad_(False)
    for key in sorted(tensors):
        place, value = key.removeprefix("base_model.model."), tensors[key]
        if place in head_tensors(model) and head_tensors(model)[place].shape == value.shape:
            head_tensors(model)[place].copy_(value)
            continue
        exported, _, part = place.removesuffix(".weight").rpartition(".")
        name = own_name(model, exported)
        part = _TENSORS.get(part, "")
        if not part or name not in projections(model):
            raise UserError(
                f"{folder}/adapter_model.safetensors: {key} has no place in a {model.config.family} model; "
                "use the base model the adapter was made for"
            )
        module = _lora_modules(model).get(name) or _insert(model, name, settings)
        parameter = getattr(module, part)
        if parameter is None or parameter.shape != value.shape:
            raise UserError(
                f"{folder}/adapter_model.safetensors: {key} has shape {tuple(value.shape)}, this base needs "
                f"{None if parameter is None else tuple(parameter.shape)}; use the base model the adapter was made for"
            )
        parameter.data.copy_(value)
    if model.score is not None:
        model.score.requires_grad_(True)


def _lora_modules(model: GPT) -> dict[str, LoRALinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def _insert(model: GPT, name: str, settings: Settings) -> LoRALinear:
    base = model.get_submodule(name)
    assert isinstance(base, nn.Linear)
    module = LoRALinear(base, settings)
    replace_module(model, name, module)
    return module
